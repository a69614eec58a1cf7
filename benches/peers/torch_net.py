"""A network of Gantry (its JSON, as `gantry-train bench --serve` prints it) as a PyTorch module, and one training step of it as a
PyTorch user would write it: channels-last, plain BatchNorm, torch.optim.Adam."""

import torch
from torch import nn
from torch.nn import functional as F

from common import Unsupported

EPSILON, MOMENTUM = 1e-3, 0.1  # of the norms
MODALITIES = 2


def activation(kind):
    if kind == "none":
        return nn.Identity()
    return nn.ReLU(inplace=True) if kind == "relu" else nn.LeakyReLU(kind["leaky_relu"], inplace=True)


class Network(nn.Module):
    """One set of convolutions; norms per modality where `sets` is 2."""

    def __init__(self, net, sets):
        super().__init__()
        if net.get("norm", "batch") != "batch":
            raise Unsupported(f"{net['norm']} norms")
        self.net, self.flat = net, net["spatial"] == "d2"
        self.convs, self.norms, self.activations = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        channels = [net["input"]["channels"]]
        for index, layer in enumerate(net["layers"]):
            (kind, op), inputs = parts(layer["op"]), [channels[i] for i in layer["inputs"]]
            out = {"concat": sum(inputs), "add": inputs[0]}.get(kind, inputs[0])
            if kind in ("conv", "deconv"):
                out = op["out_channels"]
                self.convs[str(index)] = self.conv(inputs[0], op) if kind == "conv" else self.deconv(inputs[0], op)
            elif kind == "pixel_shuffle":
                out = inputs[0] // op["factor"] ** 2
            elif kind == "pad_channels":
                out = inputs[0] + op["front"] + op["back"]
            elif kind not in ("norm", "add", "concat", "max_pool", "upsample", "interpolate"):
                raise Unsupported(f"layer {layer['name']}: {kind}")
            if kind == "norm" or op.get("norm"):
                batch_norm = nn.BatchNorm2d if self.flat else nn.BatchNorm3d
                self.norms[str(index)] = nn.ModuleList(batch_norm(out, EPSILON, MOMENTUM) for _ in range(sets))
            if "activation" in op:
                self.activations[str(index)] = activation(op["activation"])
            channels.append(out)

    def axes(self, sizes):
        return tuple(sizes[1:] if self.flat else sizes)

    def conv(self, channels, op):
        pads = [d * (k - 1) // 2 for d, k in zip(op["dilation"], op["kernel"])]
        conv = nn.Conv2d if self.flat else nn.Conv3d
        padding = self.axes(pads) if op["padding"] == "zero" else 0
        return conv(channels, op["out_channels"], self.axes(op["kernel"]), self.axes(op["stride"]), padding,
                    self.axes(op["dilation"]), op["groups"], op["bias"])

    def deconv(self, channels, op):
        deconv = nn.ConvTranspose2d if self.flat else nn.ConvTranspose3d
        missing = [max(s - k, 0) for k, s in zip(op["kernel"], op["stride"])]
        return deconv(channels, op["out_channels"], self.axes(op["kernel"]), self.axes(op["stride"]), 0, self.axes(missing),
                      bias=False)

    def forward(self, image, modality):
        values = [image]
        for index, layer in enumerate(self.net["layers"]):
            (kind, op), key = parts(layer["op"]), str(index)
            inputs = [values[i] for i in layer["inputs"]]
            x = inputs[0]
            if kind == "conv":
                if op["padding"] == "symmetric":
                    # depth, height, width: a slice has no depth, and no padding in it
                    for axis, (d, k) in enumerate(zip(op["dilation"], op["kernel"]), 1 if self.flat else 2):
                        x = symmetric(x, axis, d * (k - 1) // 2)
                x = F.dropout(self.convs[key](x), op["dropout"], self.training)
            elif kind == "deconv":
                x = self.convs[key](x)
                for axis, (size, stride) in enumerate(zip(inputs[0].shape[2:], self.axes(op["stride"])), 2):
                    x = x.narrow(axis, 0, size * stride)
            elif kind == "add":
                x = inputs[0] + inputs[1]
            elif kind == "concat":
                x = torch.cat(inputs, 1)
            elif kind == "max_pool":
                x = (F.max_pool2d if self.flat else F.max_pool3d)(x, self.axes(op["size"]))
            elif kind in ("upsample", "interpolate"):
                linear = "bilinear" if self.flat else "trilinear"
                x = F.interpolate(x, scale_factor=self.axes(op["factor"]), mode="nearest" if kind == "upsample" else linear)
            elif kind == "pixel_shuffle":
                x = F.pixel_shuffle(x, op["factor"])
            elif kind == "pad_channels":
                x = F.pad(x, (0, 0) * (x.dim() - 2) + (op["front"], op["back"]))
            if key in self.norms:
                norms = self.norms[key]
                x = norms[modality % len(norms)](x)
            values.append(self.activations[key](x) if key in self.activations else x)
        return values[-1]


def parts(op):
    """Name and fields of an operation."""
    return (op, {}) if isinstance(op, str) else next(iter(op.items()))


def symmetric(x, axis, pad):
    """Mirrored with the edge repeated."""
    if pad == 0:
        return x
    first, last = x.narrow(axis, 0, pad).flip(axis), x.narrow(axis, x.shape[axis] - pad, pad).flip(axis)
    return torch.cat((first, x, last), axis)


def loss(logits, labels, objective):
    """Dice and cross-entropy of both modalities, and the distillation between them, as host-train has them."""
    total, soft = 0, []
    for z, g in zip(logits, labels):
        classes = z.shape[1]
        z = z.float().movedim(1, -1).reshape(-1, classes)
        g = g.reshape(-1, 1)
        p, truth = z.softmax(1), F.one_hot(g[:, 0], classes).float()
        counts = truth.sum(0)
        right = p.gather(1, g)
        total = total - objective["dice"] * (2 * (truth.T @ right)[:, 0] / (p.square().sum(0) + counts + 1e-7)).mean()
        weights = (1 - counts / len(z))[g[:, 0], None]
        total = total - objective["ce"] * (right.clamp(0.005, 1).log() * weights).sum() / len(z)
        means = truth.T @ z / (counts + 1e-6)[:, None]
        soft.append((means / objective["temperature"]).log_softmax(1))
    a, b = soft
    return total + objective["kd"] * 0.5 * ((a.exp() - b.exp()) * (a - b)).sum() / a.shape[0]


class Training:
    """Steps on the same two random batches."""

    def __init__(self, hello, device, amp, compiled):
        net, objective, n = hello["net"], hello["objective"], hello["batch"]
        channels, size = net["input"]["channels"], net["input"]["size"]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = amp == "tf32"
        torch.backends.cudnn.benchmark = True
        flat = net["spatial"] == "d2"
        shape = tuple(size[1:] if flat else size)
        self.layout = torch.channels_last if flat else torch.channels_last_3d
        self.device, self.bf16, self.objective = torch.device(device), amp == "bf16", objective
        self.network = Network(net, MODALITIES).to(self.device, memory_format=self.layout).train()
        kernels = [conv.weight for conv in self.network.convs.values()]
        others = [p for p in self.network.parameters() if all(p is not kernel for kernel in kernels)]
        groups = [{"params": kernels, "weight_decay": objective["l2"]}, {"params": others}]
        self.adam = torch.optim.Adam(groups, lr=hello["rate"], fused=True)
        make = torch.Generator().manual_seed(0)
        self.images = [torch.rand((n, channels, *shape), generator=make) * 4 - 2 for _ in range(MODALITIES)]
        self.classes = [torch.randint(5, (n, *shape), generator=make) for _ in range(MODALITIES)]
        self.compute = torch.compile(self.objective_of) if compiled else self.objective_of

    def weights(self):
        """Numbers that are trained: convolutions, and the norms of one modality."""
        convs = sum(p.numel() for conv in self.network.convs.values() for p in conv.parameters())
        return convs + sum(p.numel() for norms in self.network.norms.values() for p in norms[0].parameters())

    def objective_of(self, images, labels):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = [self.network(image, modality) for modality, image in enumerate(images)]
        return loss(logits, labels, self.objective)

    def step(self):
        images = [image.to(self.device, memory_format=self.layout) for image in self.images]
        labels = [label.to(self.device) for label in self.classes]
        self.adam.zero_grad()
        self.compute(images, labels).backward()
        self.adam.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
