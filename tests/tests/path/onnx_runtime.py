"""Checks model files with onnx.checker and runs them in ONNX Runtime.

The only argument is a JSON file: a list of jobs, each with `model`, `modality` (an index, or null where the file has no
such input), `image` (raw values), and where to write `logits` (raw values) and `labels` (one byte each).
"""

import json
import sys

import numpy
import onnx
import onnxruntime

TYPES = {"tensor(int8)": numpy.int8, "tensor(float)": numpy.float32}


def session(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    domains = {node.domain for node in model.graph.node} | {opset.domain for opset in model.opset_import}
    assert domains <= {"", "ai.onnx"}, f"{path}: operator sets {domains}, expected the standard one only"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    sessions = {}
    with open(sys.argv[1]) as file:
        jobs = json.load(file)
    for job in jobs:
        path = job["model"]
        if path not in sessions:
            sessions[path] = session(path)
        image = sessions[path].get_inputs()[0]
        feed = {image.name: numpy.fromfile(job["image"], TYPES[image.type]).reshape(image.shape)}
        if job["modality"] is not None:
            feed["modality"] = numpy.array(job["modality"], numpy.int64)
        logits, labels = sessions[path].run(["logits", "labels"], feed)
        logits.tofile(job["logits"])
        assert labels.dtype == numpy.int64 and labels.min() >= 0 and labels.max() < 256
        labels.astype(numpy.uint8).tofile(job["labels"])


main()
