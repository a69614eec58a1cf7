"""Gantry's int8 file as a list of steps, for one modality.

Every peer gets its file from this list (`onnx_files.py`, `tflite_file.py`, `ncnn_file.py`), so all of them run the same
weights, scales and biases, and no converter's own optimiser stands between the network and the engine.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from common import MODALITIES, Unsupported

# Steps that move codes without changing them, so that scale and zero point pass through.
MOVES = ("MaxPool", "Resize", "Concat")


@dataclass
class Value:
    """A tensor of codes: `real = scale * (code - zero)`."""

    shape: list  # [1, c, (d,) h, w]
    scale: np.float32
    zero: int


@dataclass
class Conv:
    """int8 weights `[out, in / groups, ...]` with a scale per output channel, zero point 0; bias i32 at `x * w` scale."""

    weights: np.ndarray
    steps: np.ndarray
    bias: np.ndarray
    strides: list
    dilations: list
    pads: list  # the same on both sides
    groups: int


@dataclass
class Step:
    op: str  # Conv, Add, MaxPool, Resize or Concat
    inputs: list
    output: str
    conv: Conv | None = None
    factors: list = field(default_factory=list)  # of MaxPool and Resize, per image axis


@dataclass
class Network:
    values: dict
    steps: list
    image: str
    logits: str

    def consumers(self, name):
        return [step for step in self.steps if name in step.inputs]

    @property
    def rank(self):
        """Image axes: 2 or 3."""
        return len(self.values[self.image].shape) - 2


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def freeze(model, modality):
    """The model with `modality` fixed: what any deployment of a single-modality file would load."""
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    graph = frozen.graph
    tables = {t.name: t for t in graph.initializer}
    nodes, used = [], set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[1] == "modality":
            row = numpy_helper.to_array(tables[node.input[0]])[MODALITIES.index(modality)]
            graph.initializer.append(numpy_helper.from_array(np.array(row), node.output[0]))
        else:
            nodes.append(node)
            used.update(node.input)
    keep = [t for t in graph.initializer if t.name in used]
    inputs = [i for i in graph.input if i.name != "modality"]
    for repeated, items in ((graph.node, nodes), (graph.initializer, keep), (graph.input, inputs)):
        items = [type(item).FromString(item.SerializeToString()) for item in items]
        del repeated[:]
        repeated.extend(items)
    return frozen


def read(path: Path, modality) -> Network:
    """Reads a QLinearConv file; residual sums may be `DequantizeLinear`, `Add`, `QuantizeLinear`."""
    graph = shape_inference.infer_shapes(freeze(onnx.load(path), modality)).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    network = Network({}, [], graph.input[0].name, graph.output[0].name)

    def declare(name, scale, zero):
        network.values[name] = Value(shapes[name], np.float32(constants[scale]), int(constants[zero]))

    reals = {}  # real value -> its codes' names
    for node in graph.node:
        has, out = attributes(node), node.output[0]
        match node.op_type:
            case "QLinearConv":
                x, x_scale, x_zero, w, w_scale, _, y_scale, y_zero, bias = node.input
                if x not in network.values:
                    declare(x, x_scale, x_zero)
                declare(out, y_scale, y_zero)
                rank, pads = len(shapes[x]) - 2, list(has["pads"])
                if pads[:rank] != pads[rank:]:
                    raise Unsupported(f"{out}: padding {pads} differs between the sides")
                steps = np.broadcast_to(constants[w_scale], constants[bias].shape)
                conv = Conv(constants[w], steps, constants[bias], list(has["strides"]), list(has["dilations"]),
                            pads[:rank], has["group"])
                network.steps.append(Step("Conv", [x], out, conv=conv))
            case "DequantizeLinear":
                if node.input[0] not in network.values:
                    declare(*node.input)
                reals[out] = [node.input[0]]
            case "Add":
                reals[out] = [code for name in node.input for code in reals[name]]
            case "Relu":  # the saturation of the QuantizeLinear behind it, at zero point -128
                reals[out] = reals[node.input[0]]
            case "QuantizeLinear" if len(reals[node.input[0]]) == 2:
                declare(out, *node.input[1:])
                network.steps.append(Step("Add", reals[node.input[0]], out))
            case op if op in MOVES:
                codes = [name for name in node.input if name in network.values]
                first = network.values[codes[0]]
                if any((network.values[c].scale, network.values[c].zero) != (first.scale, first.zero) for c in codes):
                    raise Unsupported(f"{out}: its inputs have different scales")
                network.values[out] = Value(shapes[out], first.scale, first.zero)
                factors = has.get("kernel_shape", [])
                if op == "Resize":
                    factors = [int(f) for f in constants[node.input[2]][2:]]
                network.steps.append(Step(op, codes, out, factors=list(factors)))
            case "ArgMax":
                pass  # every writer ends with it
            case op:
                raise Unsupported(f"{out}: {op} is not known to benches/peers/network.py")
    return network
