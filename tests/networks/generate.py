"""Writes what PyTorch's networks answer, for `src/models/reference.rs`.

    python tests/networks/generate.py

Every tensor of a network is a function of its key (`numbers`), so an answer agrees only where keys, extents, layers and
their order do. Networks come from torchvision, timm and dynamic-network-architectures where these have them; the others
are written here from their papers. Answers are double precision, in evaluation.
"""
import importlib
import json
import pathlib
from functools import partial

import timm
import timm.layers
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from timm.models.xception import Block as XceptionBlock
from timm.models.xception import SeparableConv2d, Xception
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm
from torchvision.models import densenet, mobilenetv2, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models import vgg
from torchvision.models.googlenet import GoogLeNet
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead

inception = importlib.import_module("torchvision.models.inception")

WORD = 0xFFFFFFFF


def numbers(key, count):
    """So many numbers in [-1, 1) that depend on the key: 32-bit FNV-1a of it, then Murmur's finaliser."""
    seed = 0x811C9DC5
    for byte in key.encode():
        seed = (seed ^ byte) * 0x01000193 & WORD
    x = torch.arange(count, dtype=torch.int64) * 2654435761 + seed & WORD
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35)]:
        x = x ^ x >> shift
        low, high = x & 0xFFFF, x >> 16
        x = low * factor + ((high * factor & 0xFFFF) << 16) & WORD
    x = x ^ x >> 16
    return x.double() / 2**31 - 1


def fill(network):
    # A module under several names has the first one.
    tensors = [*network.named_parameters(), *network.named_buffers()]
    for key, old in tensors:
        if key.endswith("num_batches_tracked"):
            continue
        new = numbers(key, old.numel()).reshape(old.shape)
        if old.dim() > 1:
            # Normalised weights have a mean, so that their singular value is none near 0.
            new = (new + key.endswith("weight_orig")) * (6 / (old.numel() / old.shape[0])) ** 0.5
        elif key.endswith("running_var") or key.endswith("weight"):
            new = 1 + 0.3 * new
        elif key.endswith("weight_u") or key.endswith("weight_v"):
            new = (1.5 + 0.45 * new) / old.numel() ** 0.5
        else:
            new = 0.3 * new
        old.data = new
    return network.double().eval()


def last(y):
    return y.movedim(1, -1) if y.dim() > 1 else y


ANSWERS = []


def answer(role, kind, settings, network, shape, channels, pick=lambda y: y):
    """Runs a network on an input of a shape, channels last, and keeps five values of each output."""
    x = numbers("input", torch.Size(shape).numel()).reshape(shape).movedim(-1, 1)
    with torch.no_grad():
        outputs = pick(fill(network)(x))
    outputs = [last(y) for y in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]
    probe = lambda y: [y.reshape(-1)[(y.numel() - 1) * i // 4].item() for i in range(5)]
    ANSWERS.append(
        {
            "role": role,
            "network": {"kind": kind, **settings},
            "input": list(shape),
            "channels": channels,
            "parameters": sum(p.numel() for p in network.parameters()),
            "outputs": [{"shape": list(y.shape), "values": probe(y)} for y in outputs],
        }
    )


CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: F.max_pool2d, 3: F.max_pool3d}


# U-Nets of LeeJunHyun's collection -----------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self, dims, i, o):
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.conv = nn.Sequential(
            conv(i, o, 3, padding=1), norm(o), nn.ReLU(), conv(o, o, 3, padding=1), norm(o), nn.ReLU()
        )

    def forward(self, x):
        return self.conv(x)


class Up(nn.Module):
    def __init__(self, dims, i, o):
        super().__init__()
        double = nn.Upsample(scale_factor=2)
        self.up = nn.Sequential(double, CONV[dims](i, o, 3, padding=1), NORM[dims](o), nn.ReLU())

    def forward(self, x):
        return self.up(x)


class Gate(nn.Module):
    def __init__(self, dims, width):
        super().__init__()
        one = lambda i, o: nn.Sequential(CONV[dims](i, o, 1), NORM[dims](o))
        self.W_g, self.W_x = one(width, width // 2), one(width, width // 2)
        self.psi = one(width // 2, 1)

    def forward(self, g, x):
        return x * torch.sigmoid(self.psi(F.relu(self.W_g(g) + self.W_x(x))))


class AttentionUnet(nn.Module):
    def __init__(self, dims, i, o, base):
        super().__init__()
        self.dims, w = dims, [base << k for k in range(5)]
        for k in range(5):
            setattr(self, f"Conv{k + 1}", Pair(dims, ([i] + w)[k], w[k]))
        for k in range(5, 1, -1):
            setattr(self, f"Up{k}", Up(dims, w[k - 1], w[k - 2]))
            setattr(self, f"Att{k}", Gate(dims, w[k - 2]))
            setattr(self, f"Up_conv{k}", Pair(dims, w[k - 1], w[k - 2]))
        self.Conv_1x1 = CONV[dims](base, o, 1)

    def forward(self, x):
        skips = []
        for k in range(1, 6):
            x = getattr(self, f"Conv{k}")(x if k == 1 else POOL[self.dims](x, 2))
            skips.append(x)
        for k in range(5, 1, -1):
            x = getattr(self, f"Up{k}")(x)
            skip = getattr(self, f"Att{k}")(x, skips[k - 2])
            x = getattr(self, f"Up_conv{k}")(torch.cat([skip, x], 1))
        return self.Conv_1x1(x)


class Recurrent(nn.Module):
    def __init__(self, dims, width, steps):
        super().__init__()
        self.steps = steps
        self.conv = nn.Sequential(CONV[dims](width, width, 3, padding=1), NORM[dims](width), nn.ReLU())

    def forward(self, x):
        h = self.conv(x)
        for _ in range(self.steps):
            h = self.conv(x + h)
        return h


class RRCNN(nn.Module):
    def __init__(self, dims, i, o, steps):
        super().__init__()
        self.RCNN = nn.Sequential(Recurrent(dims, o, steps), Recurrent(dims, o, steps))
        self.Conv_1x1 = CONV[dims](i, o, 1)

    def forward(self, x):
        x = self.Conv_1x1(x)
        return x + self.RCNN(x)


class R2Unet(nn.Module):
    def __init__(self, dims, i, o, base, steps):
        super().__init__()
        self.dims, w = dims, [base << k for k in range(5)]
        for k in range(5):
            setattr(self, f"RRCNN{k + 1}", RRCNN(dims, ([i] + w)[k], w[k], steps))
        for k in range(5, 1, -1):
            setattr(self, f"Up{k}", Up(dims, w[k - 1], w[k - 2]))
            setattr(self, f"Up_RRCNN{k}", RRCNN(dims, w[k - 1], w[k - 2], steps))
        self.Conv_1x1 = CONV[dims](base, o, 1)

    def forward(self, x):
        skips = []
        for k in range(1, 6):
            x = getattr(self, f"RRCNN{k}")(x if k == 1 else POOL[self.dims](x, 2))
            skips.append(x)
        for k in range(5, 1, -1):
            x = getattr(self, f"Up{k}")(x)
            x = getattr(self, f"Up_RRCNN{k}")(torch.cat([skips[k - 2], x], 1))
        return self.Conv_1x1(x)


answer("segmenter", "attention-unet", {"base": 4}, AttentionUnet(2, 1, 2, 4), [2, 16, 32, 1], 2)
answer("segmenter", "attention-unet", {"base": 4}, AttentionUnet(3, 2, 3, 4), [1, 16, 32, 16, 2], 3)
answer("segmenter", "r2-unet", {"base": 4}, R2Unet(2, 1, 2, 4, 2), [1, 32, 16, 1], 2)
answer("segmenter", "r2-unet", {"base": 2, "steps": 3}, R2Unet(3, 1, 1, 2, 3), [1, 16, 16, 32, 1], 1)

# Classifiers ---------------------------------------------------------------------------------------



def thin(share):
    """torchvision's ResNet with so many times fewer channels."""

    class Thin(resnet.ResNet):
        def __setattr__(self, name, value):
            super().__setattr__(name, value // share if name == "inplanes" and not self._modules else value)

        def _make_layer(self, block, planes, *args, **kwargs):
            return super()._make_layer(block, planes // share, *args, **kwargs)

    def make(block, blocks, classes, **kwargs):
        network = Thin(block, blocks, **kwargs)
        network.fc = nn.Linear(512 // share * block.expansion, classes)
        return network

    return make


def first(network, channels):
    """For images of so many channels."""
    old = network.conv1
    network.conv1 = nn.Conv2d(channels, old.out_channels, 7, stride=2, padding=3, bias=False)
    return network


answer("network", "resnet", {"depth": 18, "base": 8}, thin(8)(resnet.BasicBlock, [2, 2, 2, 2], 5), [2, 40, 33, 3], 5)
answer("network", "resnet", {"depth": 50, "base": 4}, thin(16)(resnet.Bottleneck, [3, 4, 6, 3], 2), [2, 48, 64, 3], 2)
for attention in ["se", "cbam"]:
    block = {"attn_layer": attention}
    for depth, kind in [(18, timm.models.resnet.BasicBlock)]:
        network = timm.models.resnet.ResNet(kind, [2, 2, 2, 2], num_classes=3, block_args=block)
        answer("network", "resnet", {"depth": depth, "attention": attention}, network, [2, 32, 32, 3], 3)
V2 = timm.models.resnetv2.ResNetV2
bn = dict(conv_layer=timm.layers.create_conv2d, norm_layer=timm.layers.BatchNormAct2d)
for depth, layers, basic in [(18, [2, 2, 2, 2], True), (50, [3, 4, 6, 3], False)]:
    width = [8 * 2**i * (1 if basic else 4) for i in range(4)]
    network = V2(layers, channels=width, num_classes=3, stem_chs=8, basic=basic, bottle_ratio=1 if basic else 0.25, **bn)
    answer("network", "resnet", {"depth": depth, "base": 8, "preactivated": True}, network, [1, 48, 64, 3], 3)
network = densenet.DenseNet(growth_rate=4, block_config=(2, 3, 2), num_init_features=8, num_classes=3)
answer("network", "densenet", {"growth": 4, "blocks": [2, 3, 2], "base": 8}, network, [2, 64, 48, 3], 3)


answer("network", "mobilenet-v2", {"width": 0.25}, mobilenetv2.MobileNetV2(3, 0.25), [2, 64, 48, 3], 3)


def thin_vgg(layout, width, hidden, pool, classes, norm):
    features = [v if v == "M" else v * width // 64 for v in layout]
    network = vgg.VGG(vgg.make_layers(features, batch_norm=norm), num_classes=classes, init_weights=False)
    network.avgpool = nn.AdaptiveAvgPool2d(pool)
    sizes = [(features[-2] * pool * pool, hidden), (hidden, hidden), (hidden, classes)]
    for i, (inputs, outputs) in zip([0, 3, 6], sizes):
        network.classifier[i] = nn.Linear(inputs, outputs)
    return network


# The last level has 3 x 2 pixels, of which 2 x 2 and 3 x 3 parts are taken.
for depth, layout, pool, norm in [(16, "D", 2, False), (11, "A", 3, True)]:
    network = thin_vgg(vgg.cfgs[layout], 4, 10, pool, 3, norm)
    settings = {"depth": depth, "width": 4, "hidden": 10, "pool": pool, "batch_norm": norm}
    answer("network", "vgg", settings, network, [2, 96, 64, 3], 3)
network = GoogLeNet(3, aux_logits=False, init_weights=False)
answer("network", "googlenet", {}, network, [1, 64, 96, 3], 3)

# nnU-Net -------------------------------------------------------------------------------------------

INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def enlarged(outputs):
    size = outputs[0].shape[2:]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return outputs[:1] + [F.interpolate(y, size, mode=mode, align_corners=False) for y in outputs[1:]]


def nnunet(kind, dims, inputs, outputs, widths, flat, **counts):
    each = lambda s, flat_value, value: [flat_value if s < flat else value] + [value] * (dims - 1)
    stages = range(len(widths))
    return kind(
        inputs, len(widths), widths, CONV[dims], [each(s, 1, 3) for s in stages],
        [each(s, 1, 2 if s else 1) for s in stages], num_classes=outputs, conv_bias=True,
        norm_op=INSTANCE[dims], norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True, **counts,
    )


network = nnunet(PlainConvUNet, 2, 1, 3, [4, 8, 12, 12], 0, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
answer("segmenter", "nnunet", {"widths": [4, 8, 12, 12]}, network, [2, 16, 24, 1], 3, enlarged)
network = nnunet(PlainConvUNet, 3, 2, 2, [4, 6, 6], 1, n_conv_per_stage=1, n_conv_per_stage_decoder=1)
settings = {"widths": [4, 6, 6], "flat": 1, "convs": 1}
answer("segmenter", "nnunet", settings, network, [1, 4, 8, 12, 2], 2, enlarged)
network = nnunet(
    ResidualEncoderUNet, 3, 2, 2, [4, 6, 6], 2, n_blocks_per_stage=[1, 2, 2], n_conv_per_stage_decoder=1
)
settings = {"widths": [4, 6, 6], "blocks": [1, 2, 2], "flat": 2}
answer("segmenter", "nnunet-residual", settings, network, [1, 8, 8, 12, 2], 2, enlarged)


# DeepLab -------------------------------------------------------------------------------------------


def deeplab(share, classes):
    backbone = thin(share)(resnet.Bottleneck, [3, 4, 6, 3], 1, replace_stride_with_dilation=[False, True, True])
    backbone = IntermediateLayerGetter(backbone, {"layer4": "out", "layer3": "aux"})
    head = DeepLabHead(2048 // share, classes, [2, 3, 5])
    head[0] = ASPP(2048 // share, [2, 3, 5], 8)
    head[1], head[2] = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
    head[4] = nn.Conv2d(8, classes, 1)
    return DeepLabV3(backbone, head, FCNHead(1024 // share, classes))


settings = {"depth": 50, "base": 4, "width": 8, "dilations": [2, 3, 5], "deep_supervision": True}
answer("segmenter", "deeplab-v3", settings, deeplab(16, 3), [1, 33, 48, 3], 3, lambda y: list(y.values()))


# Super-resolution ----------------------------------------------------------------------------------


class DenseFive(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        for i in range(5):
            o = width if i == 4 else growth
            setattr(self, f"conv{i + 1}", nn.Conv2d(width + i * growth, o, 3, padding=1))

    def forward(self, x):
        seen = [x]
        for i in range(4):
            seen.append(F.leaky_relu(getattr(self, f"conv{i + 1}")(torch.cat(seen, 1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(seen, 1))


class ThreeDense(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseFive(width, growth) for _ in range(3))

    def forward(self, x):
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    def __init__(self, i, o, width, blocks, growth, scale):
        super().__init__()
        conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)
        self.scale = scale
        self.conv_first = conv(i * scale**2, width)
        self.body = nn.Sequential(*(ThreeDense(width, growth) for _ in range(blocks)))
        self.conv_body = conv(width, width)
        self.ups = scale.bit_length() - 1
        for k in range(self.ups):
            setattr(self, f"conv_up{k + 1}", conv(width, width))
        self.conv_hr, self.conv_last = conv(width, width), conv(width, o)

    def forward(self, x):
        x = self.conv_first(F.pixel_unshuffle(x, self.scale))
        x = x + self.conv_body(self.body(x))
        for k in range(self.ups):
            x = F.leaky_relu(getattr(self, f"conv_up{k + 1}")(F.interpolate(x, scale_factor=2)), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


class Named(nn.Module):
    """Modules by name, one after the other."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x


class Added(Named):
    def forward(self, x):
        return x + super().forward(x)


class SRResNet(nn.Module):
    def __init__(self, i, o, width, blocks, scale):
        super().__init__()
        conv = lambda i, o, k=3: nn.Conv2d(i, o, k, padding=k // 2)
        norm = lambda: nn.BatchNorm2d(width)
        block = lambda: Added(
            conv1=conv(width, width), norm1=norm(), prelu=nn.PReLU(), conv2=conv(width, width), norm2=norm()
        )
        self.scale = scale
        self.input = Named(conv=conv(i * scale**2, width, 9), prelu=nn.PReLU())
        self.blocks = nn.Sequential(*(block() for _ in range(blocks)))
        self.trunk = Named(conv=conv(width, width), norm=norm())
        up = lambda: Named(conv=conv(width, 4 * width), shuffle=nn.PixelShuffle(2), prelu=nn.PReLU())
        self.up = nn.Sequential(*(up() for _ in range(scale.bit_length() - 1)))
        self.output = conv(width, o, 9)

    def forward(self, x):
        x = self.input(F.pixel_unshuffle(x, self.scale))
        return torch.tanh(self.output(self.up(x + self.trunk(self.blocks(x)))))


class SRDiscriminator(nn.Module):
    def __init__(self, i, width, hidden, size):
        super().__init__()
        layers, o = [], i
        for k in range(8):
            i, o = o, width << k // 2
            conv = nn.Conv2d(i, o, 3, stride=1 + k % 2, padding=1)
            norm = nn.BatchNorm2d(o) if k else nn.Identity()
            layers.append(Named(conv=conv, norm=norm, act=nn.LeakyReLU(0.2)))
        self.features = nn.Sequential(*layers)
        self.fc1, self.fc2 = nn.Linear(o * size[0] * size[1] // 256, hidden), nn.Linear(hidden, 1)

    def forward(self, x):
        x = self.features(x).flatten(1)
        return self.fc2(F.leaky_relu(self.fc1(x), 0.2)).flatten()


settings = {"width": 6, "blocks": 2, "growth": 4, "scale": 4}
answer("generator", "rrdb", settings, RRDBNet(2, 1, 6, 2, 4, 4), [1, 12, 16, 2], 1)
answer("generator", "srgan", {"width": 6, "blocks": 2}, SRResNet(2, 1, 6, 2, 4), [2, 16, 12, 2], 1)
settings = {"width": 4, "hidden": 5}
answer("discriminator", "srgan", settings, SRDiscriminator(2, 4, 5, (32, 48)), [3, 32, 48, 2], 1)


# SAGAN ---------------------------------------------------------------------------------------------


def sn(i, o, k, bias=True):
    return spectral_norm(nn.Conv2d(i, o, k, padding=k // 2, bias=bias))


class SelfAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.theta, self.phi = sn(c, c // 8, 1, False), sn(c, c // 8, 1, False)
        self.g, self.o = sn(c, c // 2, 1, False), sn(c // 2, c, 1, False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, _, h, w = x.shape
        theta = self.theta(x).flatten(2)
        phi, g = F.max_pool2d(self.phi(x), 2).flatten(2), F.max_pool2d(self.g(x), 2).flatten(2)
        beta = torch.softmax(theta.transpose(1, 2) @ phi, -1)
        return x + self.gamma * self.o((g @ beta.transpose(1, 2)).reshape(n, -1, h, w))


class SaganBlock(nn.Module):
    def __init__(self, i, o, normed, shortcut):
        super().__init__()
        self.conv1, self.conv2 = sn(i, o, 3), sn(o, o, 3)
        if normed:
            self.norm1, self.norm2 = nn.BatchNorm2d(i), nn.BatchNorm2d(o)
        if shortcut:
            self.shortcut = sn(i, o, 1)


class SaganGenerator(nn.Module):
    def __init__(self, nz, base, o, size, attention):
        super().__init__()
        blocks = (size // 4).bit_length() - 1
        self.at, self.width = attention, base << blocks - 1
        self.linear = spectral_norm(nn.Linear(nz, 16 * self.width))
        widths = [self.width] + [base << blocks - 1 - i for i in range(blocks)]
        self.blocks = nn.ModuleList(SaganBlock(widths[i], widths[i + 1], True, True) for i in range(blocks))
        self.attention = SelfAttention(base * size // attention)
        self.norm, self.output = nn.BatchNorm2d(base), sn(base, o, 3)

    def forward(self, z):
        h = self.linear(z).reshape(-1, 4, 4, self.width).movedim(-1, 1)
        up = nn.Upsample(scale_factor=2)
        for b in self.blocks:
            y = b.conv1(up(F.relu(b.norm1(h))))
            h = b.shortcut(up(h)) + b.conv2(F.relu(b.norm2(y)))
            h = self.attention(h) if h.shape[2] == self.at else h
        return torch.tanh(self.output(F.relu(self.norm(h))))


class SaganDiscriminator(nn.Module):
    def __init__(self, i, base, size, attention):
        super().__init__()
        downs = (size // 4).bit_length() - 1
        self.at = attention
        widths = [i] + [base << k for k in range(downs)]
        blocks = [SaganBlock(widths[k], widths[k + 1], False, True) for k in range(downs)]
        self.blocks = nn.ModuleList(blocks + [SaganBlock(widths[-1], widths[-1], False, False)])
        self.attention = SelfAttention(base * size // attention // 2)
        self.linear = spectral_norm(nn.Linear(widths[-1], 1))

    def forward(self, x):
        for i, b in enumerate(self.blocks):
            y = b.conv2(F.relu(b.conv1(F.relu(x) if i else x)))
            down = i + 1 < len(self.blocks)
            x = F.avg_pool2d(y, 2) + b.shortcut(F.avg_pool2d(x, 2)) if down else x + y
            x = self.attention(x) if x.shape[2] == self.at else x
        return self.linear(F.relu(x).sum((2, 3))).flatten()


settings = {"base": 8, "attention": 8}
answer("generator", "sagan", settings, SaganGenerator(6, 8, 2, 16, 8), [3, 6], 2)
answer("discriminator", "sagan", settings, SaganDiscriminator(2, 8, 16, 8), [3, 16, 16, 2], 1)


# StyleGAN2 -----------------------------------------------------------------------------------------


class EqualLinear(nn.Module):
    def __init__(self, i, o, rate=1.0):
        super().__init__()
        self.rate, self.weight, self.bias = rate, nn.Parameter(torch.randn(o, i)), nn.Parameter(torch.zeros(o))

    def forward(self, x):
        return F.linear(x, self.weight * self.rate / self.weight.shape[1] ** 0.5, self.bias * self.rate)


class EqualConv(nn.Module):
    def __init__(self, i, o, k, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o)) if bias else None

    def forward(self, x, **kwargs):
        return F.conv2d(x, self.weight / self.weight[0].numel() ** 0.5, self.bias, **kwargs)


def filtered(x, pad, gain=1):
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    kernel = (gain * torch.outer(taps, taps)).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, pad), kernel, groups=x.shape[1])


def spread(x):
    """Zeros behind every pixel."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, 2 * h, 2 * w)
    y[:, :, ::2, ::2] = x
    return y


act = lambda x, gain=1.0: F.leaky_relu(x, 0.2) * 2**0.5 * gain


class Modulated(nn.Module):
    def __init__(self, i, o, k, style):
        super().__init__()
        self.affine, self.weight = EqualLinear(style, i), nn.Parameter(torch.randn(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o))
        if k == 3:
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, x, w, up=False):
        o, i, k, _ = self.weight.shape
        each = []
        for image, s in zip(x, self.affine(w)):
            weight = self.weight * s[None, :, None, None]
            if k == 3:
                weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            else:
                weight = weight / i**0.5
            image = image[None]
            each.append(F.conv2d(filtered(spread(image), (3, 2, 3, 2), 4), weight) if up else F.conv2d(image, weight, padding=k // 2))
        y = torch.cat(each) + self.bias[:, None, None]
        return act(y) if k == 3 else y


class StyleGenerator(nn.Module):
    def __init__(self, nz, base, most, style, mapping, o, size):
        super().__init__()
        width = lambda s: min(base // s, most)
        fcs = {f"fc{k}": EqualLinear(style if k else nz, style, 0.01) for k in range(mapping)}
        self.mapping, self.size = nn.ModuleDict(fcs), size
        blocks, s = {}, 4
        while s <= size:
            block = nn.Module()
            if s == 4:
                block.const = nn.Parameter(torch.randn(width(4), 4, 4))
            else:
                block.conv0 = Modulated(width(s // 2), width(s), 3, style)
            block.conv1, block.torgb = Modulated(width(s), width(s), 3, style), Modulated(width(s), o, 1, style)
            blocks[f"b{s}"] = block
            s *= 2
        self.synthesis = nn.ModuleDict(blocks)

    def forward(self, z):
        w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for fc in self.mapping.values():
            w = act(fc(w))
        image = None
        for block in self.synthesis.values():
            x = block.const.expand(len(z), -1, -1, -1) if image is None else block.conv0(x, w, True)
            x = block.conv1(x, w)
            y = block.torgb(x, w)
            image = y if image is None else y + filtered(spread(image), (2, 1, 2, 1), 4)
        return image


class StyleDiscriminator(nn.Module):
    def __init__(self, i, base, most, group, size):
        super().__init__()
        width = lambda s: min(base // s, most)
        self.size, self.group = size, group
        s = size
        while s > 4:
            block = nn.Module()
            if s == size:
                block.fromrgb = EqualConv(i, width(s), 1)
            block.conv0, block.conv1 = EqualConv(width(s), width(s), 3), EqualConv(width(s), width(s // 2), 3)
            block.skip = EqualConv(width(s), width(s // 2), 1, False)
            self.add_module(f"b{s}", block)
            s //= 2
        c = width(4)
        self.b4 = nn.Module()
        self.b4.conv, self.b4.fc, self.b4.out = EqualConv(c + 1, c, 3), EqualLinear(16 * c, c), EqualLinear(c, 1)

    def forward(self, x):
        x, s = act(self.get_submodule(f"b{self.size}").fromrgb(x)), self.size
        while s > 4:
            block, half = self.get_submodule(f"b{s}"), 0.5**0.5
            skip = block.skip(filtered(x, (1, 1, 1, 1))[:, :, ::2, ::2]) * half
            y = filtered(act(block.conv0(x, padding=1)), (2, 2, 2, 2))
            x, s = skip + act(block.conv1(y, stride=2), half), s // 2
        n, c, h, w = x.shape
        y = x.reshape(self.group, -1, c, h, w)
        y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        x = torch.cat([x, y.repeat(self.group)[:, None, None, None].expand(n, 1, h, w)], 1)
        x = act(self.b4.fc(act(self.b4.conv(x, padding=1)).flatten(1)))
        return self.b4.out(x).flatten()


settings = {"base": 64, "most": 6, "style": 5, "mapping": 2}
network = StyleGenerator(7, 64, 6, 5, 2, 2, 16)
answer("generator", "stylegan2", settings, network, [3, 7], 2)
network = StyleDiscriminator(2, 64, 6, 2, 16)
answer("discriminator", "stylegan2", {"base": 64, "most": 6, "group": 2}, network, [4, 16, 16, 2], 1)


# Wavelets ------------------------------------------------------------------------------------------


def haar(dims):
    """Kernels of the bands, the last axis' bands the slowest to change."""
    kernels = []
    for band in range(2**dims):
        kernel = torch.ones([2] * dims, dtype=torch.float64)
        for axis in range(dims):
            if band >> axis & 1:
                kernel.select(axis, 1).neg_()
        kernels.append(kernel / 2 ** (dims / 2))
    return torch.stack(kernels)


class Mwcnn(nn.Module):
    def __init__(self, dims, channels, widths, convs):
        super().__init__()
        self.bands = haar(dims)
        conv, norm, self.dims = CONV[dims], NORM[dims], dims

        def unit(i, o, normed=True):
            if not normed:
                return Named(conv=conv(i, o, 3, padding=1))
            return Named(conv=conv(i, o, 3, padding=1, bias=False), norm=norm(o), act=nn.ReLU())

        b = 2**dims
        above = [channels] + widths
        down = lambda l: [unit(b * above[l] if k == 0 else widths[l], widths[l]) for k in range(convs)]
        up = lambda l: [
            unit(widths[l], b * above[l] if k == convs - 1 else widths[l], l > 0 or k < convs - 1) for k in range(convs)
        ]
        self.down = nn.Sequential(*(nn.Sequential(*down(l)) for l in range(len(widths))))
        self.up = nn.Sequential(*(nn.Sequential(*up(l)) for l in range(len(widths))))

    def forward(self, x):
        conv = {2: F.conv2d, 3: F.conv3d}[self.dims]
        back = {2: F.conv_transpose2d, 3: F.conv_transpose3d}[self.dims]
        # One channel after the other, and bands before channels.
        split = lambda x: torch.stack([conv(c[:, None], self.bands[:, None], stride=2) for c in x.unbind(1)], 2).flatten(1, 2)
        def join(x):
            x = x.unflatten(1, (len(self.bands), -1))
            return torch.cat([back(c, self.bands[:, None], stride=2) for c in x.unbind(2)], 1)
        skips = [x]
        for level in self.down:
            skips.append(level(split(skips[-1])))
        x = skips.pop()
        for level in reversed(self.up):
            x = skips.pop() + join(level(x))
        return x


network = Mwcnn(2, 2, [6, 8], 2)
answer("network", "mwcnn", {"widths": [6, 8], "convs": 2}, network, [1, 12, 16, 2], 2)
answer("network", "mwcnn", {"widths": [5], "convs": 3}, Mwcnn(3, 1, [5], 3), [2, 4, 6, 8, 1], 1)


# Xception ------------------------------------------------------------------------------------------


def thin_xception(share, classes):
    network = Xception(classes)
    w = lambda c: round(c / share)
    sep = lambda i, o: SeparableConv2d(w(i), w(o), 3, 1, 1)
    network.conv1, network.bn1 = nn.Conv2d(3, w(32), 3, 2, bias=False), nn.BatchNorm2d(w(32))
    network.conv2, network.bn2 = nn.Conv2d(w(32), w(64), 3, bias=False), nn.BatchNorm2d(w(64))
    network.block1 = XceptionBlock(w(64), w(128), 2, 2, start_with_relu=False)
    network.block2, network.block3 = XceptionBlock(w(128), w(256), 2, 2), XceptionBlock(w(256), w(728), 2, 2)
    for i in range(4, 12):
        setattr(network, f"block{i}", XceptionBlock(w(728), w(728), 3, 1))
    network.block12 = XceptionBlock(w(728), w(1024), 2, 2, grow_first=False)
    network.conv3, network.bn3 = sep(1024, 1536), nn.BatchNorm2d(w(1536))
    network.conv4, network.bn4 = sep(1536, 2048), nn.BatchNorm2d(w(2048))
    network.fc = nn.Linear(w(2048), classes)
    return network


answer("network", "xception", {"width": 0.0625}, thin_xception(16, 3), [1, 71, 64, 3], 3)


def thin_inception(share, classes):
    def unit(i, o, **kwargs):
        return inception.BasicConv2d(i if i == 3 else i // share, o // share, **kwargs)

    kinds = "ABCDE"
    blocks = [partial(getattr(inception, f"Inception{k}"), conv_block=unit) for k in kinds]
    blocks = [unit, *blocks, inception.InceptionAux]
    network = inception.Inception3(classes, False, inception_blocks=blocks, init_weights=False)
    network.fc = nn.Linear(2048 // share, classes)
    return network


answer("network", "inception-v3", {"width": 0.0625}, thin_inception(16, 3), [1, 79, 96, 3], 3)



text = "[\n" + ",\n".join(json.dumps(a) for a in ANSWERS) + "\n]\n"
pathlib.Path(__file__).with_name("answers.json").write_text(text)
