"""A tiny random network in the form of Gantry's int8 file, with everything that the peers' writers know: both branches, a
strided and a dilated convolution, a residual sum, a pool, an up-sampling and a concatenation. For `--check`."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = 32, 4


def write(folder: Path) -> Path:
    rng = np.random.default_rng(7)
    nodes, constants = [], {}

    def constant(name, array):
        constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def node(op, inputs, output, **has):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **has))
        return output

    def pick(name, rows):
        return node("Gather", [constant(f"{name}s", rows), "modality"], name)

    scales = {"image": (constant("image/scale", np.float32(0.02)), constant("image/zero", np.int8(0)))}

    def scale(name, value, zero):
        rows = np.array([value, 1.1 * value], np.float32)
        scales[name] = (pick(f"{name}/scale", rows), constant(f"{name}/zero", np.int8(zero)))

    def conv(x, name, c_in, c_out, k=3, stride=1, dilation=1, zero=-128):
        scale(name, 0.02, zero)
        pad = dilation * (k - 1) // 2
        codes = rng.integers(-90, 91, (c_out, c_in, k, k))
        # Without a mean, so that the picture decides about the labels and not the size of the inputs.
        codes = np.clip(np.rint(codes - codes.mean((1, 2, 3), keepdims=True)), -127, 127).astype(np.int8)
        weight = constant(f"{name}/weight", codes)
        step = pick(f"{name}/step", rng.uniform(0.5, 1.5, (2, c_out)).astype(np.float32) / (25 * k * c_in**0.5))
        bias = pick(f"{name}/bias", rng.integers(-300, 300, (2, c_out)).astype(np.int32))
        inputs = [x, *scales[x], weight, step, constant("weights/zero", np.int8(0)), *scales[name], bias]
        return node("QLinearConv", inputs, name, kernel_shape=[k, k], strides=[stride] * 2, dilations=[dilation] * 2,
                    pads=[pad] * 4, group=1)

    def move(op, inputs, name, **has):
        scales[name] = scales[inputs[0]]
        return node(op, inputs, name, **has)

    a = conv("image", "a", 1, 16)
    pooled = move("MaxPool", [a], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    b = conv(pooled, "b", 16, 16, dilation=2, zero=3)
    scale("sum", 0.03, -128)
    reals = [node("DequantizeLinear", [x, *scales[x]], f"sum/in{i}") for i, x in enumerate((b, pooled))]
    node("QuantizeLinear", [node("Add", reals, "sum/real"), *scales["sum"]], "sum")
    c = conv("sum", "c", 16, 16, stride=2)
    d = conv(c, "d", 16, 16, k=1)
    joined = [move("Resize", [d, "", constant("factors", np.float32([1, 1, 4, 4]))], "up", mode="nearest",
                   coordinate_transformation_mode="asymmetric", nearest_mode="floor")]
    e = conv(a, "e", 16, 16)
    # One group: what a concatenation joins has one scale.
    nodes[-1].input[6:8] = scales["d"]
    scales["e"] = scales["d"]
    both = move("Concat", [*joined, e], "both", axis=1)
    conv(both, "logits", 32, CLASSES, k=1, zero=5)
    node("ArgMax", ["logits"], "labels", axis=1, keepdims=0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("image", TensorProto.INT8, [1, 1, SIZE, SIZE]), value("modality", TensorProto.INT64, [])],
        [value("logits", TensorProto.INT8, [1, CLASSES, SIZE, SIZE]), value("labels", TensorProto.INT64, [1, SIZE, SIZE])],
        list(constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return folder
