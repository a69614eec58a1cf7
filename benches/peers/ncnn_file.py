"""The int8 network as ncnn's .param and .bin, written directly.

ncnn's int8 is symmetric: one scale per input, no zero point. Weights and their scales are Gantry's own; an activation
that ReLU left in 0..255 steps is quantised again by ncnn into 0..127, so its labels differ a little by design. As in
ncnn2int8, a convolution whose consumers are all convolutions hands on int8, every other one f32.
"""

import struct

import numpy as np

from common import Unsupported
from network import Network

INT8_TAG = 0x000D4B38
MAGIC = 7767517


def largest(value):
    """Largest magnitude that the codes stand for."""
    return float(value.scale) * max(127 - value.zero, 128 + value.zero)


def scale_in(value):
    """Codes per unit of ncnn's int8 input."""
    return 127 / largest(value)


def encode(network: Network):
    """Text of the .param and bytes of the .bin."""
    if network.rank != 2:
        raise Unsupported("ncnn has no int8 3D convolution")
    layers, data, blobs = [f"Input image 0 1 {network.image}"], [], 1
    readers = {}  # blob -> the names that its consumers read, in their order

    def split(name):
        nonlocal blobs
        count = len(network.consumers(name))
        readers[name] = [name]
        if count > 1:
            readers[name] = [f"{name}/{i}" for i in range(count)]
            layers.append(f"Split {name}/split 1 {count} {name} {' '.join(readers[name])}")
            blobs += count

    split(network.image)
    for step in network.steps:
        inputs = " ".join(readers[name].pop(0) for name in step.inputs)
        head = f"{step.output} {len(step.inputs)} 1 {inputs} {step.output}"
        match step.op:
            case "Conv":
                layers.append(conv(network, step, head, data))
            case "Add":
                layers.append(f"BinaryOp {head} 0=0")
                if network.values[step.output].zero == -128:
                    layers[-1] = f"BinaryOp {step.output}/sum 2 1 {inputs} {step.output}/sum 0=0"
                    layers.append(f"ReLU {step.output} 1 1 {step.output}/sum {step.output}")
                    blobs += 1
            case "Concat":
                layers.append(f"Concat {head} 0=0")
            case "MaxPool":
                h, w = step.factors
                layers.append(f"Pooling {head} 0=0 1={w} 11={h} 2={w} 12={h}")
            case "Resize":
                h, w = step.factors
                layers.append(f"Interp {head} 0=1 1={h}.0 2={w}.0")
        blobs += 1
        split(step.output)
    return f"{MAGIC}\n{len(layers)} {blobs}\n" + "\n".join(layers) + "\n", b"".join(data)


def conv(network, step, head, data):
    """The layer's line; appends its weights to `data`."""
    conv, x, y = step.conv, network.values[step.inputs[0]], network.values[step.output]
    consumers = network.consumers(step.output)
    requant = bool(consumers) and all(c.op == "Conv" for c in consumers)
    weights = conv.weights.tobytes()
    data.append(struct.pack("<I", INT8_TAG) + weights + b"\0" * (-len(weights) % 4))
    data.append((conv.bias * (x.scale * conv.steps)).astype("<f4").tobytes())
    data.append((1 / conv.steps).astype("<f4").tobytes())
    data.append(np.float32(scale_in(x)).tobytes())
    if requant:
        data.append(np.float32(scale_in(y)).tobytes())
    (kh, kw), (sh, sw), (dh, dw), (ph, pw) = conv.weights.shape[2:], conv.strides, conv.dilations, conv.pads
    depthwise = conv.groups > 1
    kind = "ConvolutionDepthWise" if depthwise else "Convolution"
    term = 101 if requant else 1
    return (
        f"{kind} {head} 0={len(conv.steps)} 1={kw} 11={kh} 2={dw} 12={dh} 3={sw} 13={sh} 4={pw} 14={ph} 5=1 "
        f"6={conv.weights.size} 8={term} 9={int(y.zero == -128)}" + (f" 7={conv.groups}" if depthwise else "")
    )
