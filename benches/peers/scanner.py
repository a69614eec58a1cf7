"""Plays a scanner for `gantry-edge serve`: sends CT and MR slices in turn over two associations of pynetdicom, so many per second.

Every slice is new (its own UID and place) and every series has 60 slices. Prints what the service's /metrics say at the end, and what
the sender saw: statuses, and the time from sending to the answer.

    python benches/peers/scanner.py --port 11112 --metrics http://127.0.0.1:9108/metrics --rate 10 --seconds 300
"""

import argparse
import json
import statistics
import time
import urllib.request
from collections import Counter

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE

SLICES_PER_SERIES = 60
STUDY = generate_uid()


def slice_of(modality, side, seed):
    """A body of one tissue with a few organs and noise, in air or on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:side * 1j, -1:1:side * 1j]
    body = (x / 0.8) ** 2 + (y / 0.6) ** 2 < 1
    if modality == "CT":
        pixels = np.where(body, 40, -1000).astype(float)
        for cx, cy, r, value in [(-0.4, -0.1, 0.25, 110), (0.45, 0, 0.15, 130), (0, 0.35, 0.08, 500)]:
            pixels[((x - cx) ** 2 + (y - cy) ** 2) < r * r] = value
        pixels += rng.normal(0, 12, pixels.shape)
    else:
        pixels = np.where(body, 300, 4).astype(float)
        for cx, cy, r, value in [(-0.4, -0.1, 0.25, 500), (0.45, 0, 0.15, 700), (0, 0.35, 0.08, 60)]:
            pixels[((x - cx) ** 2 + (y - cy) ** 2) < r * r] = value
        pixels = np.abs(pixels + rng.normal(0, 12, pixels.shape))
    return pixels.astype(np.int16)


def instance(modality, pixels):
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    ds.Modality = modality
    ds.PatientName, ds.PatientID, ds.StudyInstanceUID = "Bench^Scanner", "BENCH", STUDY
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    side = pixels.shape[0]
    ds.Rows = ds.Columns = side
    ds.PixelSpacing = [380 / side] * 2
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.PixelData = pixels.tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11112)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--rate", type=float, default=10, help="slices per second, both modalities together")
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    entity = AE("SCANNER")
    lanes = {}
    for modality, uid in (("CT", CTImageStorage), ("MR", MRImageStorage)):
        entity.add_requested_context(uid, ExplicitVRLittleEndian)
    for modality in ("CT", "MR"):
        association = entity.associate(args.host, args.port, ae_title="GANTRY")
        assert association.is_established, modality
        images = [instance(modality, slice_of(modality, side, seed)) for side in (256, 512) for seed in range(4)]
        lanes[modality] = {"association": association, "images": images, "sent": 0, "series": {}}
    start, statuses, answers, behind = time.monotonic(), Counter(), [], 0.0
    total = int(args.rate * args.seconds)
    for number in range(total):
        due = start + number / args.rate
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        behind = max(behind, -pause)
        lane = lanes["CT" if number % 2 == 0 else "MR"]
        # 256 and 512 in turn, each in a series of its own.
        half = lane["sent"] // 2 % 4 + 4 * (lane["sent"] % 2)
        ds, part = lane["images"][half], lane["sent"] % 2
        place = lane["sent"] // 2
        if place % SLICES_PER_SERIES == 0:
            lane["series"][part] = (generate_uid(), generate_uid())
        ds.SeriesInstanceUID, ds.FrameOfReferenceUID = lane["series"][part]
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.ImagePositionPatient = [-190, -190, 3.0 * (place % SLICES_PER_SERIES)]
        before = time.monotonic()
        status = lane["association"].send_c_store(ds)
        answers.append(1e3 * (time.monotonic() - before))
        statuses[f"{status.Status:04x}" if "Status" in status else "none"] += 1
        lane["sent"] += 1
    took = time.monotonic() - start
    with urllib.request.urlopen(args.metrics) as page:
        text = page.read().decode()
    for lane in lanes.values():
        lane["association"].release()
    wanted = ("gantry_slices_total", "gantry_refusals_total", "gantry_step_seconds{")
    ranked = sorted(answers)
    print(json.dumps({
        "rate_per_s": args.rate, "seconds": round(took, 1), "sent": total, "statuses": statuses,
        "sender_behind_ms": round(1e3 * behind, 1),
        "answer_ms": {"p50": statistics.median(ranked), "p99": ranked[int(0.99 * (total - 1))], "max": ranked[-1]},
        "metrics": [line for line in text.splitlines() if line.startswith(wanted)],
    }, indent=2))


if __name__ == "__main__":
    main()
