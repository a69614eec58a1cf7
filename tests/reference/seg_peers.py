"""Opens segmentations and secondary captures of Gantry with highdicom and pydicom and compares every voxel and place.

Called with the path of a list in JSON:
  segmentations: [{path, patient, labels (raw bytes, [slice][row][column]), names, colors (sRGB),
                   slices: [{instance, frame, spacing (rows, columns), orientation, position}]}]
  captures: [{path, patient, pixels (raw bytes, [frame][row][column][3])}]
Prints one line per file; ends with an error at the first difference.
"""

import json
import sys

import highdicom as hd
import numpy as np
import pydicom
from PIL import Image, ImageCms
from pydicom.sr._concepts_dict import concepts


def expect(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: {found}, expected {expected}")


def labels_of(seg, slices):
    """Pixels by source, as a label map."""
    options = dict(combine_segments=True, assert_missing_frames_are_empty=True)
    if slices[0]["frame"] is None:
        return seg.get_pixels_by_source_instance([one["instance"] for one in slices], **options)
    expect({one["instance"] for one in slices}, {slices[0]["instance"]}, "instances of a multi-frame source")
    return seg.get_pixels_by_source_frame(slices[0]["instance"], [one["frame"] for one in slices], **options)


def groups_of(dataset, frame):
    """All functional groups of a frame by keyword."""
    shared = {item.keyword: item.value[0] for item in dataset.SharedFunctionalGroupsSequence[0]}
    own = {item.keyword: item.value[0] for item in dataset.PerFrameFunctionalGroupsSequence[frame]}
    return {**shared, **own}


def check_places(path, dataset, slices):
    by_source = {(one["instance"], one["frame"]): one for one in slices}
    for frame in range(dataset.NumberOfFrames):
        groups = groups_of(dataset, frame)
        source = groups["DerivationImageSequence"].SourceImageSequence[0]
        wanted = by_source[source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")]
        found = [
            groups["PixelMeasuresSequence"].PixelSpacing,
            groups["PlaneOrientationSequence"].ImageOrientationPatient,
            groups["PlanePositionSequence"].ImagePositionPatient,
        ]
        expected = [wanted["spacing"], wanted["orientation"], wanted["position"]]
        for one, other in zip(found, expected):
            if not np.allclose(np.array(one, float), other, rtol=0, atol=1e-12):
                sys.exit(f"{path}, frame {frame + 1}: {found}, expected {expected}")


def check_volume(path, seg, labels, slices):
    """As a volume in space, where highdicom finds one: its voxels lie where the source pixels do."""
    geometry = seg.get_volume_geometry()
    if geometry is None:
        return False
    volume = seg.get_volume(combine_segments=True)
    to_index = np.linalg.inv(volume.affine)
    for one, expected in zip(slices, labels):
        index = to_index @ [*one["position"], 1]
        plane = int(np.rint(index[0]))
        # Empty slices beyond the first and the last stored frame are no part of the volume.
        if not 0 <= plane < volume.spatial_shape[0]:
            expect(bool(expected.any()), False, f"{path}: labels outside the volume at {one['position']}")
            continue
        if not np.allclose(index[:3], [plane, 0, 0], rtol=0, atol=0.01):
            sys.exit(f"{path}: {one['position']} is voxel {index[:3]}")
        if not np.array_equal(volume.array[plane], expected):
            sys.exit(f"{path}: plane {plane} of the volume differs")
    return True


def cielab(color):
    """L*, a*, b* (D50) of an sRGB colour by Little CMS, to about one unit."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    light, a, b = ImageCms.applyTransform(Image.new("RGB", (1, 1), tuple(color)), transform).tobytes()
    signed = lambda byte: byte - 256 if byte > 127 else byte
    return [light / 2.55, signed(a), signed(b)]


def check_segments(path, seg, entry):
    """Concepts are those that pydicom took from the standard; colours those of the label map."""
    known = {(scheme, value, meaning)
             for scheme in ("SCT", "DCM")
             for meanings in concepts[scheme].values()
             for value, (meaning, _) in meanings.items()}
    for number, (name, color) in enumerate(zip(entry["names"], entry["colors"]), 1):
        segment = seg.get_segment_description(number)
        expect(segment.segment_label, name, f"{path}: segment {number}")
        for code in (segment.segmented_property_category, segment.segmented_property_type):
            if code.scheme_designator != "99GANTRY":
                expect((code.scheme_designator, code.value, code.meaning) in known, True, f"{path}: {code}")
        scale = np.array([655.35, 257, 257])
        found = np.array(segment.RecommendedDisplayCIELabValue) / scale - [0, 128, 128]
        if np.abs(found - cielab(color)).max() > 1:
            sys.exit(f"{path}: colour {found} of {name}, expected {cielab(color)}")


def check_segmentation(entry):
    path, slices = entry["path"], entry["slices"]
    seg = hd.seg.segread(path)
    labels = np.fromfile(entry["labels"], np.uint8).reshape(len(slices), seg.Rows, seg.Columns)
    found = labels_of(seg, slices)
    if not np.array_equal(found, labels):
        sys.exit(f"{path}: {np.count_nonzero(found != labels)} voxels differ")
    expect(str(seg.PatientName), entry["patient"], f"{path}: patient")
    check_places(path, pydicom.dcmread(path), slices)
    check_segments(path, seg, entry)
    volume = check_volume(path, seg, labels, slices)
    kind = seg.segmentation_type.value
    print(f"{path}: {kind}, {seg.NumberOfFrames} frames, {labels.size} voxels agree, {'a' if volume else 'no'} volume")


def check_capture(entry):
    dataset = pydicom.dcmread(entry["path"])
    expect(str(dataset.PatientName), entry["patient"], f"{entry['path']}: patient")
    expected = np.fromfile(entry["pixels"], np.uint8)
    if not np.array_equal(dataset.pixel_array.ravel(), expected):
        sys.exit(f"{entry['path']}: pixels differ")
    print(f"{entry['path']}: {dataset.file_meta.MediaStorageSOPClassUID.name}, {expected.size} bytes agree")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries["segmentations"]:
        check_segmentation(entry)
    for entry in entries["captures"]:
        check_capture(entry)


main()
