"""Writes small state dicts with PyTorch and what their networks answer: the fixtures of `tests/weights.rs`.

    python tests/python/write_state_dicts.py tests/weights

The networks are written here from their published descriptions, with the reference implementations' module numbering.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn


def norm_of(kind, channels):
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)


class UnetLevel(nn.Module):
    """One level of pix2pix's U-Net: down, what is inside, up; the outer levels join their input."""

    def __init__(self, outer, inner, norm, inputs=None, child=None, outermost=False, innermost=False):
        super().__init__()
        self.outermost = outermost
        bias = norm == "instance"
        down = nn.Conv2d(outer if inputs is None else inputs, inner, 4, 2, 1, bias=bias)
        leaky, relu = nn.LeakyReLU(0.2), nn.ReLU()
        if outermost:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1)
            parts = [down, child, relu, up, nn.Tanh()]
        elif innermost:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            parts = [leaky, down, relu, up, norm_of(norm, outer)]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            parts = [leaky, down, norm_of(norm, inner), child, relu, up, norm_of(norm, outer)]
        self.model = nn.Sequential(*parts)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class Unet(nn.Module):
    def __init__(self, downs, ngf, inputs, outputs, norm):
        super().__init__()
        width = [ngf * 2 ** min(k, 3) for k in range(downs)]
        level = UnetLevel(width[-2], width[-1], norm, innermost=True)
        for k in range(downs - 2, 0, -1):
            level = UnetLevel(width[k - 1], width[k], norm, child=level)
        self.model = UnetLevel(outputs, width[0], norm, inputs=inputs, child=level, outermost=True)

    def forward(self, x):
        return self.model(x)


class Block(nn.Module):
    def __init__(self, c, norm, dropout):
        super().__init__()
        bias = norm == "instance"
        parts = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3, bias=bias), norm_of(norm, c), nn.ReLU()]
        parts += [nn.Dropout(0.5)] if dropout else []
        parts += [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3, bias=bias), norm_of(norm, c)]
        self.conv_block = nn.Sequential(*parts)

    def forward(self, x):
        return x + self.conv_block(x)


class Resnet(nn.Module):
    def __init__(self, blocks, ngf, inputs, outputs, norm, dropout=False):
        super().__init__()
        bias = norm == "instance"
        parts = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, ngf, 7, bias=bias), norm_of(norm, ngf), nn.ReLU()]
        for c in (ngf, 2 * ngf):
            parts += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), norm_of(norm, 2 * c), nn.ReLU()]
        parts += [Block(4 * ngf, norm, dropout) for _ in range(blocks)]
        for c in (4 * ngf, 2 * ngf):
            parts += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1, bias=bias), norm_of(norm, c // 2), nn.ReLU()]
        parts += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*parts)

    def forward(self, x):
        return self.model(x)


class Patch(nn.Module):
    def __init__(self, inputs, ndf, layers, norm):
        super().__init__()
        parts, c = [nn.Conv2d(inputs, ndf, 4, 2, 1), nn.LeakyReLU(0.2)], ndf
        for i in range(1, layers + 1):
            width = ndf * min(2**i, 8)
            parts += [nn.Conv2d(c, width, 4, 2 if i < layers else 1, 1, bias=norm == "instance")]
            parts += [norm_of(norm, width), nn.LeakyReLU(0.2)]
            c = width
        self.model = nn.Sequential(*parts, nn.Conv2d(c, 1, 4, 1, 1))

    def forward(self, x):
        return self.model(x)


class Pixel(nn.Module):
    def __init__(self, inputs, ndf):
        super().__init__()
        parts = [nn.Conv2d(inputs, ndf, 1), nn.LeakyReLU(0.2), nn.Conv2d(ndf, 2 * ndf, 1, bias=False)]
        parts += [nn.BatchNorm2d(2 * ndf), nn.LeakyReLU(0.2), nn.Conv2d(2 * ndf, 1, 1, bias=False)]
        self.net = nn.Sequential(*parts)

    def forward(self, x):
        return self.net(x)


class DcganG(nn.Module):
    def __init__(self, nz, ngf, outputs, levels):
        super().__init__()
        parts, c = [], nz
        for i in range(levels):
            width = ngf * 2 ** (levels - 1 - i)
            stride, padding = (1, 0) if i == 0 else (2, 1)
            parts += [nn.ConvTranspose2d(c, width, 4, stride, padding, bias=False)]
            parts += [nn.BatchNorm2d(width), nn.ReLU()]
            c = width
        self.main = nn.Sequential(*parts, nn.ConvTranspose2d(c, outputs, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z):
        return self.main(z)


class DcganD(nn.Module):
    def __init__(self, inputs, ndf, levels):
        super().__init__()
        parts, c = [nn.Conv2d(inputs, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)], ndf
        for _ in range(1, levels):
            parts += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2)]
            c *= 2
        self.main = nn.Sequential(*parts, nn.Conv2d(c, 1, 4, 1, 0, bias=False))

    def forward(self, x):
        return self.main(x).flatten()


def settle(net):
    """Weights and running statistics that no default can be mistaken for."""
    for name, t in net.state_dict().items():
        if t.is_floating_point():
            if name.endswith("running_var"):
                t.uniform_(0.5, 1.5)
            elif t.dim() == 1:
                t.normal_(0.5 if name.endswith("weight") else 0.0, 0.2)
            else:
                t.normal_(0, 1.5 / (t[0].numel() ** 0.5))
    return net.eval()


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(4)
    nets = {
        "unet_batch": (Unet(5, 2, 1, 1, "batch"), (2, 1, 32, 64), "pix2pix-generator"),
        "unet_instance": (Unet(4, 2, 2, 1, "instance"), (1, 2, 32, 32), "cyclegan-generator"),
        "resnet_instance": (Resnet(2, 3, 1, 1, "instance"), (1, 1, 16, 24), "cyclegan-generator"),
        "resnet_dropout": (Resnet(1, 2, 1, 2, "batch", True), (2, 1, 16, 12), "pix2pix-generator"),
        "patch_batch": (Patch(2, 3, 3, "batch"), (2, 2, 40, 32), "pix2pix-discriminator"),
        "patch_instance": (Patch(1, 3, 2, "instance"), (1, 1, 32, 32), "cyclegan-discriminator"),
        "pixel": (Pixel(2, 4), (1, 2, 7, 5), "pix2pix-discriminator"),
        "dcgan_g": (DcganG(6, 2, 1, 3), (2, 6, 1, 1), "dcgan-generator"),
        "dcgan_d": (DcganD(1, 3, 3), (2, 1, 32, 32), "dcgan-discriminator"),
    }
    lines = []
    for name, (net, shape, kind) in nets.items():
        settle(net)
        x = torch.randn(shape)
        with torch.no_grad():
            y = net(x)
        state = OrderedDict((k, v.clone()) for k, v in net.state_dict().items())
        torch.save(state, out / f"{name}.pth")
        if name in ("unet_batch", "resnet_instance", "dcgan_g"):
            torch.save(state, out / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
        torch.save({"x": x, "y": y}, out / f"{name}_io.pth")
        lines.append(f"{name} {kind}")
    (out / "networks.txt").write_text("\n".join(lines) + "\n")

    # Every type, strided views, a shared storage, a parameter, prefixes and wrappers.
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) - 11.5
    views = {
        "plain": base,
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "repeated": base[:1, :2].expand(3, 2),
        "parameter": nn.Parameter(base[2].clone()),
    }
    for kind in ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "bool"):
        views[kind] = (base[0] * 2).to(getattr(torch, kind))
    views["uint8"] = base[0].abs().to(torch.uint8)
    wrapped = {"epoch": 3, "lr": 0.1, "name": "x", "state_dict": {f"module.{k}": v for k, v in views.items()}}
    torch.save(wrapped, out / "views.pth")
    torch.save(wrapped, out / "views_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(wrapped, out / "views_protocol4.pth", pickle_protocol=4)
    torch.save({k: v.float().contiguous().clone() for k, v in views.items()}, out / "views_expected.pth")


main(Path(sys.argv[1]))
