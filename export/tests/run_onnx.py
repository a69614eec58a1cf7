"""Checks ONNX files with the reference checker and runs them in ONNX Runtime.

Each line on standard input: model, element type of the image (int8 or float32), modality (0, 1, or - for none), image file,
output prefix. Writes PREFIX.logits in the model's type and PREFIX.labels in int64, raw little-endian.
"""

import sys

import numpy
import onnx
import onnxruntime

for line in sys.stdin:
    model, kind, modality, image, prefix = line.split()
    proto = onnx.load(model)
    onnx.checker.check_model(proto, full_check=True)
    domains = {entry.domain for entry in proto.opset_import} | {node.domain for node in proto.graph.node}
    assert domains == {""}, f"{model}: domains {domains}"
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    known = {value.name for value in [*inferred.graph.value_info, *inferred.graph.output]}
    unknown = [name for node in proto.graph.node for name in node.output if name not in known]
    assert not unknown, f"{model}: no shape for {unknown}"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = {value.name: value for value in session.get_inputs()}
    feed = {"image": numpy.fromfile(image, kind).reshape(inputs["image"].shape)}
    if modality != "-":
        feed["modality"] = numpy.array(int(modality), numpy.int64)
    assert set(feed) == set(inputs), f"{model}: takes {set(inputs)}"
    logits, labels = session.run(["logits", "labels"], feed)
    assert logits.dtype == numpy.dtype(kind) and labels.dtype == numpy.int64
    assert labels.shape == logits.shape[:1] + logits.shape[2:]
    logits.tofile(prefix + ".logits")
    labels.tofile(prefix + ".labels")
