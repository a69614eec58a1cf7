"""The int8 network as a .tflite file, written straight into the flatbuffer.

A converter would quantise anew or reorder axes around every layer; written directly, LiteRT runs the same int8 weights,
scales, zero points and biases as Gantry's file, in its own layout (channels last), and its labels can be compared.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as tfl

from common import Unsupported
from network import Network

OPS = tfl.BuiltinOperator
VERSIONS = {OPS.CONV_2D: 3, OPS.DEPTHWISE_CONV_2D: 3, OPS.MAX_POOL_2D: 2, OPS.RESIZE_NEAREST_NEIGHBOR: 2,
            OPS.CONCATENATION: 2, OPS.ADD: 2, OPS.ARG_MAX: 2, OPS.PAD: 2}


def last(shape):
    """[1, c, h, w] to [1, h, w, c]."""
    return [shape[0], *shape[2:], shape[1]]


class Writer:
    def __init__(self, network):
        self.network = network
        self.graph = tfl.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model = tfl.ModelT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [tfl.BufferT()]  # the first one is empty by convention
        self.index, self.codes = {}, {}

    def tensor(self, name, shape, kind, scales=None, zeros=None, data=None):
        tensor = tfl.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        if scales is not None:
            tensor.quantization = tfl.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scales, np.float32).reshape(-1)
            tensor.quantization.zeroPoint = np.asarray(zeros, np.int64).reshape(-1)
            tensor.quantization.quantizedDimension = 0
        if data is not None:
            buffer = tfl.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def value(self, name):
        if name not in self.index:
            value = self.network.values[name]
            self.index[name] = self.tensor(name, last(value.shape), tfl.TensorType.INT8, value.scale, value.zero)
        return self.index[name]

    def ints(self, name, array):
        array = np.asarray(array, np.int32)
        return self.tensor(name, array.shape, tfl.TensorType.INT32, data=array)

    def op(self, code, inputs, output, kind, **options):
        if code not in self.codes:
            entry = tfl.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), VERSIONS[code]
            self.codes[code] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(entry)
        op = tfl.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self.codes[code], inputs, [output]
        if kind:
            op.builtinOptionsType = getattr(tfl.BuiltinOptions, kind)
            op.builtinOptions = getattr(tfl, kind + "T")()
            for key, value in options.items():
                setattr(op.builtinOptions, key, value)
        self.graph.operators.append(op)

    def conv(self, step):
        conv, (name,) = step.conv, step.inputs
        value, (kh, kw) = self.network.values[name], conv.weights.shape[2:]
        x, same = self.value(name), [d * (k - 1) // 2 for d, k in zip(conv.dilations, (kh, kw))]
        padding = tfl.Padding.SAME if any(conv.pads) else tfl.Padding.VALID
        if any(conv.pads) and (conv.pads != same or conv.strides != [1, 1]):
            # SAME puts what is odd behind; ours is the same on both sides.
            (top, left), (_, c, h, w) = conv.pads, value.shape
            shape = [1, h + 2 * top, w + 2 * left, c]
            padded = self.tensor(f"{step.output}/padded", shape, tfl.TensorType.INT8, value.scale, value.zero)
            pads = self.ints(f"{step.output}/pads", [[0, 0], [top, top], [left, left], [0, 0]])
            self.op(OPS.PAD, [x, pads], padded, "PadOptions")
            x, padding = padded, tfl.Padding.VALID
        weights, depthwise = np.moveaxis(conv.weights, 1, -1), conv.groups > 1
        if depthwise:
            if conv.groups != value.shape[1] or len(weights) != conv.groups:
                raise Unsupported(f"{step.output}: LiteRT has no int8 convolution of {conv.groups} groups")
            weights = np.moveaxis(weights, 0, -1).reshape(1, kh, kw, -1)
        zeros = np.zeros(len(conv.bias))
        w = self.tensor(f"{step.output}/weight", weights.shape, tfl.TensorType.INT8, conv.steps, zeros, weights)
        self.graph.tensors[w].quantization.quantizedDimension = 3 if depthwise else 0
        b = self.tensor(f"{step.output}/bias", conv.bias.shape, tfl.TensorType.INT32, value.scale * conv.steps, zeros,
                        conv.bias.astype(np.int32))
        more = {"depthMultiplier": 1} if depthwise else {}
        self.op(OPS.DEPTHWISE_CONV_2D if depthwise else OPS.CONV_2D, [x, w, b], self.value(step.output),
                "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions", padding=padding, strideH=conv.strides[0],
                strideW=conv.strides[1], dilationHFactor=conv.dilations[0], dilationWFactor=conv.dilations[1], **more)

    def step(self, step):
        inputs = [self.value(name) for name in step.inputs]
        match step.op:
            case "Conv":
                self.conv(step)
            case "Add":
                self.op(OPS.ADD, inputs, self.value(step.output), "AddOptions")
            case "Concat":
                self.op(OPS.CONCATENATION, inputs, self.value(step.output), "ConcatenationOptions", axis=3)
            case "MaxPool":
                h, w = step.factors
                self.op(OPS.MAX_POOL_2D, inputs, self.value(step.output), "Pool2DOptions", padding=tfl.Padding.VALID,
                        strideH=h, strideW=w, filterHeight=h, filterWidth=w)
            case "Resize":
                size = self.ints(f"{step.output}/size", self.network.values[step.output].shape[2:])
                self.op(OPS.RESIZE_NEAREST_NEIGHBOR, [*inputs, size], self.value(step.output),
                        "ResizeNearestNeighborOptions")


def encode(network: Network) -> bytes:
    if network.rank != 2:
        raise Unsupported("LiteRT has no int8 kernel for CONV_3D")
    writer = Writer(network)
    for step in network.steps:
        writer.step(step)
    shape = network.values[network.logits].shape
    labels = writer.tensor("labels", [1, *shape[2:]], tfl.TensorType.INT32)
    axis = writer.ints("axis", np.int32(3))
    writer.op(OPS.ARG_MAX, [writer.value(network.logits), axis], labels, "ArgMaxOptions",
              outputType=tfl.TensorType.INT32)
    writer.graph.inputs, writer.graph.outputs = [writer.value(network.image)], [labels]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(writer.model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
