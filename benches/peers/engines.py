"""The peers: how each makes its file from Gantry's, loads it, and runs it on one thread.

`prepare` runs in the main process, `load` in the engine's own process, which imports no other engine.
A loaded engine is a function without arguments that runs one inference of the given image and returns its labels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from common import MODALITIES, Unsupported


def codes_image(model: "Source"):
    """A fixed picture, codes [1, c, (d,) h, w]: smooth blobs and noise, like a slice."""
    shape = model.network.values[model.network.image].shape
    axes = np.meshgrid(*[np.arange(n) for n in shape[2:]], indexing="ij")
    waves = sum(np.sin(axis / (7 + 4 * i)) for i, axis in enumerate(axes))
    noise = np.random.default_rng(1).normal(0, 0.3, shape)
    return np.clip(np.rint(50 * (waves + noise)), -128, 127).astype(np.int8)


@dataclass
class Source:
    """A model folder, read once."""

    folder: Path
    modality: str
    network: object  # network.Network of model.onnx
    int8: object  # model.onnx
    f32: object  # model.f32.onnx, or None
    out: Path  # where the peers' files go


@dataclass
class Engine:
    key: str
    title: str
    precision: str
    package: str  # on PyPI
    prepare: Callable  # Source -> [files]
    image: Callable  # Source, codes -> the input array
    load: Callable  # files, image -> (function, note)
    agreement: float  # for --check: labels that must equal ONNX Runtime's int8, of 1; least where numbers differ by design
    isa: str = ""  # its own switch for --isa, if it has one


def _save(source, name, model):
    path = source.out / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return [path]


def _codes(source, codes):
    return codes


def _unsigned(source, codes):
    return (codes.astype(np.int16) + 128).astype(np.uint8)


def _reals(source, codes):
    value = source.network.values[source.network.image]
    return (codes.astype(np.float32) - value.zero) * value.scale


# ONNX Runtime


def _ort_s8(source):
    return _save(source, "s8.onnx", source.int8)


def _ort_u8(source):
    import onnx_files

    return _save(source, "u8.onnx", onnx_files.unsigned(source.int8, source.modality))


def _f32(source):
    import onnx_files

    if source.f32 is None:
        raise Unsupported("the folder has no model.f32.onnx")
    return _save(source, "f32.onnx", onnx_files.single(source.f32, source.modality))


def _load_ort(files, image, modality):
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
    feed = {"image": image}
    if any(i.name == "modality" for i in session.get_inputs()):
        feed["modality"] = np.array(MODALITIES.index(modality), np.int64)
    return lambda: session.run(["labels"], feed)[0], ""


# OpenVINO

ONEDNN = "ONEDNN_MAX_CPU_ISA"


def _openvino_int8(source):
    import onnx_files

    return _save(source, "qdq.onnx", onnx_files.qdq(source.network))


def _openvino_logits(source):
    import onnx_files

    return _save(source, "qdq-logits.onnx", onnx_files.qdq(source.network, labels=False))


def _load_openvino(files, image, modality):
    import openvino as ov

    core = ov.Core()
    # f32 stays f32: on CPUs with bf16 the default would be bf16. Pinning is ours, not its own.
    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
              "ENABLE_CPU_PINNING": False, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(files[0]), "CPU", config)
    precisions = {}
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if info["layerType"].astype(str) in ("Convolution", "Deconvolution"):
            kind = f"{info['runtimePrecision'].astype(str)} {info['primitiveType'].astype(str)}"
            precisions[kind] = precisions.get(kind, 0) + 1
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(image))
    labels = [i for i, out in enumerate(compiled.outputs) if "labels" in out.get_names()]
    output = request.get_output_tensor(labels[0] if labels else 0)

    def run():
        request.infer()
        return output.data

    return run, "convolutions: " + ", ".join(f"{n} x {kind}" for kind, n in precisions.items())


# LiteRT


def _litert(source):
    import tflite_file

    return _save(source, "int8.tflite", tflite_file.encode(source.network))


def _load_litert(files, image, modality):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=files[0], num_threads=1)
    interpreter.allocate_tensors()
    (given,), (labels,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], np.ascontiguousarray(np.moveaxis(image, 1, -1)))
    ops = [op["op_name"] for op in interpreter._get_ops_details()]
    # Nodes that a delegate took over stay in the list; what the delegate does is one node, DELEGATE.
    note = f"{ops.count('DELEGATE')} XNNPACK partition(s)"

    def run():
        interpreter.invoke()
        return interpreter.get_tensor(labels["index"])

    return run, note


# ncnn


def _ncnn(source):
    import ncnn_file

    text, data = ncnn_file.encode(source.network)
    return _save(source, "int8.param", text.encode()) + _save(source, "int8.bin", data)


def _load_ncnn(files, image, modality):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = 1, False
    net.opt.use_bf16_storage = net.opt.use_fp16_storage = False
    if net.load_param(files[0]) or net.load_model(files[1]):
        raise Unsupported("ncnn refuses the file")
    given = ncnn.Mat(np.ascontiguousarray(image[0]))
    text = Path(files[0]).read_text().splitlines()
    names = text[2].split()[4], text[-1].split()[5]

    def run():
        with net.create_extractor() as extractor:
            extractor.input(names[0], given)
            return np.array(extractor.extract(names[1])[1])[None]

    return run, "without ArgMax, which it does not have per pixel"


ENGINES = [
    Engine("openvino", "OpenVINO", "int8", "openvino", _openvino_int8, _unsigned, _load_openvino, 0.98, ONEDNN),
    Engine("openvino-logits", "OpenVINO, up to the logits", "int8", "openvino", _openvino_logits, _unsigned,
           _load_openvino, 0.98, ONEDNN),
    Engine("litert", "LiteRT", "int8", "ai-edge-litert", _litert, _codes, _load_litert, 0.98),
    Engine("ort-u8", "ONNX Runtime, u8 activations", "int8", "onnxruntime", _ort_u8, _unsigned, _load_ort, 1),
    Engine("ort-s8", "ONNX Runtime, s8 activations", "int8", "onnxruntime", _ort_s8, _codes, _load_ort, 1),
    Engine("ncnn", "ncnn", "int8", "ncnn", _ncnn, _reals, _load_ncnn, 0.8),
    Engine("openvino-f32", "OpenVINO", "f32", "openvino", _f32, _reals, _load_openvino, 0.9, ONEDNN),
    Engine("ort-f32", "ONNX Runtime", "f32", "onnxruntime", _f32, _reals, _load_ort, 0.9),
]
BY_KEY = {engine.key: engine for engine in ENGINES}


def labels_of(answer):
    """Label map [(d,) h, w] of what an engine returned; logits are reduced here, outside the clock."""
    answer = np.array(answer)
    if answer.dtype in (np.float32, np.uint8):
        answer = answer.argmax(1)
    return answer[0].astype(np.uint8)
