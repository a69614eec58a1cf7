"""Looks at what the service beside a scanner wrote, as a site would: segmentations with highdicom, counters with the parser of
Prometheus' own client.

Called with the folder of its results, its file of lines, and what /metrics said. Prints one line per segmentation; ends with an
error at the first difference.
"""

import collections
import json
import pathlib
import sys

import highdicom as hd
import numpy as np
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def expect(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: {found}, expected {expected}")


def pixels_of(seg, instance):
    """Pixels of each organ that the segmentation has on a source instance, by name."""
    options = dict(combine_segments=True, assert_missing_frames_are_empty=True)
    labels = seg.get_pixels_by_source_instance([instance], **options)
    names = {number: seg.get_segment_description(number).segment_label for number in seg.segment_numbers}
    counts = np.bincount(labels.ravel(), minlength=max(names) + 1)
    return {name: int(counts[number]) for number, name in names.items() if counts[number]}


def main(folder, lines, metrics):
    lines = [json.loads(line) for line in pathlib.Path(lines).read_text().splitlines()]
    slices = {line["slice"]: line for line in lines if line["event"] == "slice"}
    written = {path for line in lines if line["event"] == "series" for path in line["wrote"]}
    for path in sorted(pathlib.Path(folder).glob("*.seg.dcm")):
        expect(str(path) in written, True, f"{path}: named by a line")
        seg = hd.seg.segread(path)
        sources = {uid for _, _, uid in seg.get_source_image_uids()}
        series = path.name.removesuffix(".seg.dcm")
        expect(sources, {uid for uid, line in slices.items() if line["series"] == series}, f"{path}: sources")
        for uid in sources:
            expect(pixels_of(seg, uid), slices[uid]["pixels"], f"{path}: pixels on {uid}")
        print(f"{path.name}: {len(sources)} slices")

    wanted = collections.Counter((line["modality"], line["outcome"]) for line in slices.values())
    families = {family.name: family for family in text_string_to_metric_families(pathlib.Path(metrics).read_text())}
    counted = {
        (sample.labels["modality"], sample.labels["outcome"]): int(sample.value)
        for sample in families["gantry_slices"].samples
    }
    expect(counted, dict(wanted), "slices that were counted")
    codes = collections.Counter(line["code"] for line in lines if line["event"] == "refused")
    counted = {sample.labels["code"]: int(sample.value) for sample in families["gantry_refusals"].samples}
    expect({code: counted.get(code) for code in codes}, dict(codes), "refusals that were counted")
    ranks = [sample for sample in families["gantry_step_seconds"].samples if sample.labels["step"] == "glass_to_mask"]
    expect({sample.labels["rank"] for sample in ranks} >= {"0.5", "0.99", "0.999"}, True, "ranks of glass to mask")


main(*sys.argv[1:])
