"""The ONNX files of the peers that read ONNX, made from Gantry's own two files."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from network import Network, freeze

U8 = TensorProto.UINT8
OPSET, IR_VERSION = 17, 8


def unsigned(model, modality):
    """The int8 file with activations as u8: every code and zero point plus 128, every weight as it was.

    `code - zero` stays the same number, so each convolution gives the same sums; the types are all that changes.
    ONNX Runtime's kernels on x86 are about twice as fast on u8.
    """
    shifted = freeze(model, modality)
    graph = shifted.graph
    zeros = set()
    for node in graph.node:
        match node.op_type:
            case "QLinearConv":
                zeros |= {node.input[2], node.input[7]}
            case "DequantizeLinear" | "QuantizeLinear":
                zeros.add(node.input[2])
    for tensor in graph.initializer:
        if tensor.name in zeros:
            codes = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(np.array(codes, np.uint8), tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = U8
    onnx.checker.check_model(shifted)
    return shifted


def single(model, modality):
    """The f32 file for one modality; each engine folds the norm's constants into its convolutions by itself."""
    return freeze(model, modality)


def qdq(network: Network, labels=True):
    """The int8 network as `DequantizeLinear`, float operations, `QuantizeLinear`: what OpenVINO reads as int8.

    Activations are u8, as its own quantiser makes them. Without `labels` the file ends at the logits.
    """
    nodes, constants = [], {}

    def constant(name, array):
        constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def node(op, inputs, output, **has):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **has))
        return output

    def scale_of(name):
        value = network.values[name]
        return constant(f"{name}/scale", value.scale), constant(f"{name}/zero", np.uint8(value.zero + 128))

    def real(step, i):
        name = step.inputs[i]
        return node("DequantizeLinear", [name, *scale_of(name)], f"{step.output}/in{i}")

    for step in network.steps:
        inputs = [real(step, i) for i in range(len(step.inputs))]
        out = f"{step.output}/real"
        match step.op:
            case "Conv":
                conv, count = step.conv, len(step.conv.steps)
                x = network.values[step.inputs[0]].scale
                parts = (
                    constant(f"{out}/codes", conv.weights),
                    constant(f"{out}/step", conv.steps.astype(np.float32)),
                    constant(f"{out}/weight_zero", np.zeros(count, np.int8)),
                )
                weight = node("DequantizeLinear", parts, f"{out}/weight", axis=0)
                bias = constant(f"{out}/bias", (conv.bias * (x * conv.steps)).astype(np.float32))
                node("Conv", [*inputs, weight, bias], out, kernel_shape=conv.weights.shape[2:], strides=conv.strides,
                     dilations=conv.dilations, pads=conv.pads * 2, group=conv.groups)
            case "Add":
                node("Add", inputs, out)
            case "Concat":
                node("Concat", inputs, out, axis=1)
            case "MaxPool":
                node("MaxPool", inputs, out, kernel_shape=step.factors, strides=step.factors)
            case "Resize":
                factors = constant(f"{out}/factors", np.array([1, 1, *step.factors], np.float32))
                node("Resize", [*inputs, "", factors], out, mode="nearest", nearest_mode="floor",
                     coordinate_transformation_mode="asymmetric")
        node("QuantizeLinear", [out, *scale_of(step.output)], step.output)
    shape = network.values[network.logits].shape
    output = helper.make_tensor_value_info(network.logits, U8, shape)
    if labels:
        node("ArgMax", [network.logits], "labels", axis=1, keepdims=0)
        output = helper.make_tensor_value_info("labels", TensorProto.INT64, [1, *shape[2:]])
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info(network.image, U8, network.values[network.image].shape)],
        [output],
        list(constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
