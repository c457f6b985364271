"""Writes fixtures for tests/goldens.rs from PyTorch: other shapes, attributes and values with every seed.

    python tests/goldens/generate.py --seed 1 --rounds 3 --out /tmp/fixtures
    GAN_GOLDENS=/tmp/fixtures cargo test --release --test goldens -- --nocapture

The format is that of tests/goldens/manifest.json. An operation is a function of tensors; it runs on the same
float32-exact inputs in double precision, whose results are stored (rounded to float32; scalars as float64), and in
single precision, whose largest error is stored beside as `f32_err`.  Names in a file are <case>/in/<input>,
<case>/out/<output>, <case>/grad/<input> and, for a second derivative, <case>/grad2/<input>.
"""
import argparse
import json
import math
import pathlib
import random
import struct

import torch
from torch.nn import functional as F

WIRE = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


class Fixtures:
    """Collects cases; draws their shapes, attributes and values from one seed."""

    def __init__(self, seed):
        self.pick = random.Random(seed)
        self.noise = torch.Generator().manual_seed(seed)
        self.tensors, self.cases = {}, []

    # Shapes and values ----------------------------------------------------------------------------

    def whole(self, low, high):
        return self.pick.randint(low, high)

    def sizes(self, dims, low, high):
        return [self.whole(low, high) for _ in range(dims)]

    def image(self, dims, low, high, channels=None):
        """Extents [n, c, spatial..]."""
        return [self.whole(1, 3), channels or self.whole(1, 5), *self.sizes(dims, low, high)]

    def normal(self, *shape, scale=1.0, shift=0.0):
        return torch.randn(list(shape), generator=self.noise) * scale + shift

    def unit(self, *shape):
        return torch.rand(list(shape), generator=self.noise)

    def mask(self, *shape):
        return (self.unit(*shape) > 0.6).float()

    def labels(self, classes, *shape):
        return torch.randint(0, classes, list(shape), generator=self.noise)

    def apart(self, *shape, reach=3.0):
        """Evenly spaced values in random order, none at zero: for functions whose derivative jumps."""
        n = math.prod(shape)
        spread = (torch.arange(n, dtype=torch.float64) + 0.37) / n * 2 - 1
        return (spread[torch.randperm(n, generator=self.noise)] * reach).float().reshape(shape)

    # Cases ----------------------------------------------------------------------------------------

    def add(self, op, attrs, inputs, function, by=None, aside=(), twice=False):
        """`function(inputs)` gives the outputs by name.  `by`: the inputs to differentiate by (all floating ones if
        not given); `aside`: outputs that are not differentiated; `twice`: differentiate the gradient by x again."""
        name = f"{op}.{len(self.cases)}"
        floats = [k for k, v in inputs.items() if v.is_floating_point()]
        by = floats if by is None else by
        extra, runs = {}, []
        for kind in (torch.float64, torch.float32):
            x = {k: v.to(kind) if k in floats else v for k, v in inputs.items()}
            x.update({k: x[k].clone().requires_grad_() for k in by})
            runs.append(self.differentiate(x, function(x), by, aside, twice, extra, kind))
        exact, single = runs
        for key, value in [*inputs.items(), *extra.items()]:
            self.store(f"{name}/in/{key}", value)
        results = {}
        for key, value in exact.items():
            self.store(f"{name}/{key}", value)
            off = (single[key].double() - value).abs()
            results[key] = {"max": float(value.abs().max()), "f32_err": float(off.max())}
        self.cases.append({"name": name, "file": "fixtures.safetensors", "op": op, "attrs": attrs,
                           "inputs": [*inputs, *extra], "results": results})

    def differentiate(self, x, outputs, by, aside, twice, extra, kind):
        found = {f"out/{k}": v for k, v in outputs.items()}
        total, along = 0.0, {}
        for key, value in outputs.items():
            if key in aside or not value.requires_grad:
                continue
            if value.dim() == 0:
                total = total + value
                continue
            if f"d_{key}" not in extra:
                extra[f"d_{key}"] = self.normal(*value.shape)
            along[f"d_{key}"] = extra[f"d_{key}"].to(kind).requires_grad_(twice)
            total = total + (value * along[f"d_{key}"]).sum()
        if by:
            grads = dict(zip(by, torch.autograd.grad(total, [x[k] for k in by], create_graph=twice)))
            found |= {f"grad/{k}": v for k, v in grads.items()}
        if twice:
            if "dd" not in extra:
                extra["dd"] = self.normal(*x["x"].shape)
            again = {**{k: x[k] for k in by}, **along}
            second = torch.autograd.grad((grads["x"] * extra["dd"].to(kind)).sum(), list(again.values()),
                                         allow_unused=True)
            for (key, value), g in zip(again.items(), second):
                found[f"grad2/{key}"] = torch.zeros_like(value) if g is None else g
        return {k: v.detach() for k, v in found.items()}

    def store(self, name, value):
        value = value.detach()
        if value.dtype == torch.float64 and value.dim():
            value = value.float()
        self.tensors[name] = value.contiguous()

    def write(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        header, blobs, at = {}, [], 0
        for name, value in self.tensors.items():
            blob = value.numpy().tobytes()
            header[name] = {"dtype": WIRE[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + len(blob)]}
            blobs.append(blob)
            at += len(blob)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / "fixtures.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
        (folder / "manifest.json").write_text(json.dumps({"torch": torch.__version__, "cases": self.cases}))


# What there is ------------------------------------------------------------------------------------


def convolutions(f):
    for dims in (1, 2, 3):
        for transposed in (False, True):
            for twice in (False, True):
                groups = f.pick.choice((1, 1, 2, 3))
                stride, dilation = f.sizes(dims, 1, 3), f.sizes(dims, 1, 2)
                kernel = f.sizes(dims, 1, 4 if dims < 3 else 3)
                reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
                # So little that a transposed convolution leaves something.
                padding = [f.whole(0, min(2, (r - 1) // (2 if transposed else 1))) for r in reach]
                inner, outer = groups * f.whole(1, 3), groups * f.whole(1, 4)
                space = [f.whole(2, 4) if transposed else r + f.whole(0, 5) for r in reach]
                attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
                if transposed:
                    attrs["output_padding"] = [f.whole(0, max(s, d) - 1) for s, d in zip(stride, dilation)]
                fans = (inner, outer // groups) if transposed else (outer, inner // groups)
                x = {"x": f.normal(f.whole(1, 3), inner, *space), "w": f.normal(*fans, *kernel, scale=0.3)}
                if not twice:
                    x["b"] = f.normal(outer)
                call = getattr(F, f"conv_transpose{dims}d" if transposed else f"conv{dims}d")
                f.add(f"conv_transpose{dims}d" if transposed else f"conv{dims}d", attrs, x,
                      lambda v, call=call, attrs=attrs: {"y": call(v["x"], v["w"], v.get("b"), **attrs)}, twice=twice)


def pools(f):
    for dims in (1, 2, 3):
        for twice in (False, True):
            kernel, stride = f.sizes(dims, 2, 3), f.sizes(dims, 1, 3)
            padding = [f.whole(0, k // 2) for k in kernel]
            window = {"kernel": kernel, "stride": stride, "padding": padding}
            shape = f.image(dims, 4, 7)
            ceil = f.pick.random() < 0.5
            largest, mean = getattr(F, f"max_pool{dims}d"), getattr(F, f"avg_pool{dims}d")
            f.add(f"max_pool{dims}d", {**window, "ceil_mode": ceil}, {"x": f.apart(*shape)},
                  lambda v: {"y": largest(v["x"], kernel, stride, padding, ceil_mode=ceil)}, twice=twice)
            counted = f.pick.random() < 0.5
            f.add(f"avg_pool{dims}d", {**window, "count_include_pad": counted}, {"x": f.normal(*shape)},
                  lambda v: {"y": mean(v["x"], kernel, stride, padding, count_include_pad=counted)}, twice=twice)
    out = f.sizes(2, 1, 4)
    f.add("adaptive_avg_pool2d", {"output": out}, {"x": f.normal(*f.image(2, 4, 9))},
          lambda v: {"y": F.adaptive_avg_pool2d(v["x"], out)}, twice=True)


def norms(f):
    eps = f.pick.choice((1e-5, 1e-3))

    def affine(c):
        return {"w": f.normal(c), "b": f.normal(c)}

    for dims in (1, 2, 3):
        shape = f.image(dims, 3, 5)
        shape[0] += 1
        c = shape[1]
        momentum = f.pick.choice((0.1, 0.3))
        for training in (True, False):
            def batch(v, training=training):
                mean, var = v["running_mean"].clone(), v["running_var"].clone()
                y = F.batch_norm(v["x"], mean, var, v["w"], v["b"], training, momentum, eps)
                return {"y": y, "running_mean": mean, "running_var": var}
            x = {"x": f.normal(*shape, scale=3.0, shift=-2.0), **affine(c),
                 "running_mean": f.normal(c), "running_var": f.unit(c) + 0.3}
            f.add("batch_norm", {"training": training, "momentum": momentum, "eps": eps}, x, batch, by=["x", "w", "b"])
        x = {"x": f.normal(*shape, scale=2.0, shift=1.0)}
        f.add("instance_norm", {"eps": eps}, x, lambda v: {"y": F.instance_norm(v["x"], eps=eps)}, twice=True)
        x = {**x, **affine(c)}
        f.add("instance_norm", {"eps": eps}, x,
              lambda v: {"y": F.instance_norm(v["x"], weight=v["w"], bias=v["b"], eps=eps)}, twice=True)
        groups = f.whole(1, 3)
        shape[1] = groups * f.whole(1, 3)
        x = {"x": f.normal(*shape), **affine(shape[1])}
        f.add("group_norm", {"groups": groups, "eps": eps}, x,
              lambda v, g=groups: {"y": F.group_norm(v["x"], g, v["w"], v["b"], eps)}, twice=True)
        inner = shape[-f.whole(1, dims + 1):]
        x = {"x": f.normal(*shape), "w": f.normal(*inner), "b": f.normal(*inner)}
        f.add("layer_norm", {"normalized_shape": inner, "eps": eps}, x,
              lambda v, i=inner: {"y": F.layer_norm(v["x"], i, v["w"], v["b"], eps)}, twice=True)
    iterations = f.whole(0, 3)
    shape = [f.whole(2, 6), *f.sizes(f.whole(1, 4), 1, 3)]

    def spectral(v):
        matrix, left, right = v["w"].flatten(1), v["u"], v["v"]
        for _ in range(iterations):
            right = F.normalize(matrix.detach().T @ left, dim=0, eps=1e-12)
            left = F.normalize(matrix.detach() @ right, dim=0, eps=1e-12)
        sigma = left @ matrix @ right
        return {"y": v["w"] / sigma, "sigma": sigma, "u": left, "v": right}
    x = {"w": f.normal(*shape), "u": F.normalize(f.normal(shape[0]), dim=0),
         "v": F.normalize(f.normal(math.prod(shape[1:])), dim=0)}
    f.add("spectral_norm", {"iterations": iterations, "eps": 1e-12}, x, spectral, by=["w"], aside=("sigma",))


def activations(f):
    slope, alpha, low = f.pick.uniform(0.01, 0.4), f.pick.uniform(0.5, 2.0), -f.pick.uniform(0.5, 2.0)
    table = {
        "relu": ({}, F.relu), "tanh": ({}, torch.tanh), "sigmoid": ({}, torch.sigmoid), "softplus": ({}, F.softplus),
        "leaky_relu": ({"negative_slope": slope}, lambda x: F.leaky_relu(x, slope)),
        "elu": ({"alpha": alpha}, lambda x: F.elu(x, alpha)), "selu": ({}, F.selu), "silu": ({}, F.silu),
        "gelu": ({"approximate": "none"}, F.gelu), "gelu_tanh": ({}, lambda x: F.gelu(x, approximate="tanh")),
        "mish": ({}, F.mish), "hardtanh": ({"min": low, "max": alpha}, lambda x: F.hardtanh(x, low, alpha)),
        "hardswish": ({}, F.hardswish), "exp": ({}, torch.exp), "abs": ({}, torch.abs), "logsigmoid": ({}, F.logsigmoid),
    }
    far = torch.tensor([-1e4, -300.0, -80.0, -25.0, -4.0, -1e-5, 1e-5, 4.0, 25.0, 80.0, 300.0, 1e4])
    for op, (attrs, function) in table.items():
        call = lambda v, function=function: {"y": function(v["x"])}  # noqa: E731
        f.add(op, attrs, {"x": f.apart(*f.image(f.whole(0, 3), 2, 5), reach=4.0)}, call, twice=op not in ("hardtanh", "hardswish"))
        if op != "exp":
            f.add(op, attrs, {"x": far.clone()}, call)
    shape = f.image(2, 2, 4)
    f.add("prelu", {}, {"x": f.apart(*shape), "w": f.normal(shape[1])}, lambda v: {"y": F.prelu(v["x"], v["w"])})
    for op, call in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        dim = f.pick.choice((0, 1, 2, 3, -1))
        x = {"x": f.normal(*f.image(2, 2, 5), scale=3.0)}
        f.add(op, {"dim": dim}, x, lambda v, call=call, dim=dim: {"y": call(v["x"], dim)}, twice=True)
    p = f.pick.uniform(0.1, 0.7)
    x = {"x": f.normal(*shape), "mask": f.mask(*shape)}
    f.add("dropout_with_mask", {"p": p}, x, lambda v: {"y": v["x"] * v["mask"] / (1 - p)}, by=["x"])


def shapes(f):
    for dims in (1, 2, 3):
        for mode in ("constant", "reflect", "replicate", "circular"):
            x = f.normal(*f.image(dims, 4, 6))
            pad = f.sizes(2 * dims, 0, 3)
            value = f.pick.choice((0.0, 1.5)) if mode == "constant" else 0.0
            options = {"value": value} if mode == "constant" else {}
            f.add("pad", {"mode": mode, "pad": pad, "value": value}, {"x": x},
                  lambda v, pad=pad, mode=mode, options=options: {"y": F.pad(v["x"], pad, mode=mode, **options)}, twice=True)
        scale = f.whole(2, 4)
        f.add("upsample_nearest", {"scale": scale}, {"x": f.normal(*f.image(dims, 2, 4))},
              lambda v, s=scale: {"y": F.interpolate(v["x"], scale_factor=s, mode="nearest")}, twice=True)
        for corners in (False, True):
            size, mode = f.sizes(dims, 1, 9), ("linear", "bilinear", "trilinear")[dims - 1]
            f.add("upsample_linear", {"size": size, "align_corners": corners}, {"x": f.normal(*f.image(dims, 2, 5))},
                  lambda v, size=size, mode=mode, c=corners: {
                      "y": F.interpolate(v["x"], size=size, mode=mode, align_corners=c)}, twice=True)
    r = f.whole(2, 3)
    f.add("pixel_shuffle", {"factor": r}, {"x": f.normal(*f.image(2, 2, 4, channels=r * r * f.whole(1, 3)))},
          lambda v: {"y": F.pixel_shuffle(v["x"], r)}, twice=True)
    shape, dim = f.image(f.whole(1, 3), 2, 4), f.pick.choice((0, 1, 2, -1))
    parts = {}
    for name in "abc"[:f.whole(2, 3)]:
        shape[dim] = f.whole(1, 4)
        parts[name] = f.normal(*shape)
    f.add("cat", {"dim": dim}, parts, lambda v: {"y": torch.cat(list(v.values()), dim)})
    rows, inner, out = f.sizes(3, 1, 9)
    f.add("linear", {}, {"x": f.normal(2, rows, inner), "w": f.normal(out, inner), "b": f.normal(out)},
          lambda v: {"y": F.linear(v["x"], v["w"], v["b"])}, twice=True)
    lead = f.sizes(f.whole(0, 2), 1, 3)
    f.add("matmul", {}, {"a": f.normal(*lead, rows, inner), "b": f.normal(*lead, inner, out)},
          lambda v: {"y": v["a"] @ v["b"]})
    x = {"q": f.normal(*lead, rows, inner), "k": f.normal(*lead, out, inner), "v": f.normal(*lead, out, 3)}
    f.add("scaled_dot_product_attention", {}, x, lambda v: {
        "y": torch.softmax(v["q"] @ v["k"].mT / math.sqrt(inner), -1) @ v["v"]})
    shape = f.sizes(4, 2, 5)
    dims = sorted(f.pick.sample(range(4), f.whole(1, 3)))
    for op, call in (("reduce_sum", torch.sum), ("reduce_mean", torch.mean)):
        f.add(op, {"dims": dims}, {"x": f.normal(*shape)}, lambda v, call=call: {"y": call(v["x"], dims)}, twice=True)
    for unbiased in (True, False):
        f.add("reduce_var", {"dims": dims, "unbiased": unbiased}, {"x": f.normal(*shape)},
              lambda v, u=unbiased: {"y": v["x"].var(dims, correction=int(u))}, twice=True)
    x = {"x": f.normal(*shape), "s": f.normal(shape[1], 1, 1), "t": f.normal(1, 1, shape[3])}
    f.add("mul_add", {}, x, lambda v: {"y": v["x"] * v["s"] + v["t"]}, twice=True)


def distances(f):
    shape = f.image(f.whole(1, 3), 3, 6)
    pair = {"x": f.normal(*shape), "y": f.normal(*shape)}
    beta, eps = f.pick.uniform(0.3, 2.0), f.pick.choice((1e-3, 1e-2))
    f.add("l1", {}, pair, lambda v: {"loss": F.l1_loss(v["x"], v["y"])})
    f.add("mse", {}, pair, lambda v: {"loss": F.mse_loss(v["x"], v["y"])})
    f.add("smooth_l1", {"beta": beta}, pair, lambda v: {"loss": F.smooth_l1_loss(v["x"], v["y"], beta=beta)})
    f.add("charbonnier", {"eps": eps}, pair, lambda v: {"loss": torch.sqrt((v["x"] - v["y"]) ** 2 + eps ** 2).mean()})
    f.add("psnr", {"data_range": 2.0}, pair,
          lambda v: {"psnr": -10 * torch.log10(F.mse_loss(v["x"], v["y"]) / 4.0)}, by=[])
    f.add("total_variation", {}, {"x": pair["x"]}, lambda v: {
        "loss": sum(v["x"].diff(dim=d).abs().mean() for d in range(2, v["x"].dim()))})
    f.add("kl_gaussian", {}, {"mu": pair["x"], "logvar": pair["y"]}, lambda v: {
        "loss": (v["mu"] ** 2 + v["logvar"].exp() - v["logvar"] - 1).mean() / 2})
    window, sigma, reach = f.pick.choice((3, 5, 7, 11)), f.pick.uniform(1.0, 2.0), f.pick.choice((1.0, 2.0))
    x = f.unit(*f.image(2, 12, 15))
    noisy = (x + f.normal(*x.shape, scale=0.1)).clamp(0, 1)

    def similarity(v):
        at = torch.arange(window, dtype=v["x"].dtype) - (window - 1) / 2
        line = torch.softmax(-(at ** 2) / (2 * sigma ** 2), 0)
        channels = v["x"].shape[1]
        kernel = torch.outer(line, line).expand(channels, 1, window, window)
        mean = lambda z: F.conv2d(z, kernel, groups=channels)  # noqa: E731
        a, b = mean(v["x"]), mean(v["y"])
        aa, bb, ab = mean(v["x"] ** 2) - a * a, mean(v["y"] ** 2) - b * b, mean(v["x"] * v["y"]) - a * b
        c1, c2 = (0.01 * reach) ** 2, (0.03 * reach) ** 2
        return {"ssim": ((2 * a * b + c1) / (a * a + b * b + c1) * (2 * ab + c2) / (aa + bb + c2)).mean()}
    f.add("ssim", {"window": window, "sigma": sigma, "data_range": reach, "k1": 0.01, "k2": 0.03},
          {"x": x, "y": noisy}, similarity)


def judgements(f):
    shape = f.image(2, 2, 6, channels=1)
    logits = {"x": f.normal(*shape, scale=4.0)}
    for target in (0.0, 1.0, f.pick.uniform(0.1, 0.95)):
        f.add("bce_with_logits", {"target": target}, logits, lambda v, t=target: {
            "loss": F.binary_cross_entropy_with_logits(v["x"], torch.full_like(v["x"], t))})
        f.add("mse", {"target": target}, logits, lambda v, t=target: {"loss": ((v["x"] - t) ** 2).mean()})
    shape = f.image(2, 2, 6)
    x = {"x": f.normal(*shape, scale=3.0), "t": f.unit(*shape), "pos_weight": f.unit(shape[1], 1, 1) * 3 + 0.2}
    f.add("bce_with_logits", {}, x, lambda v: {
        "loss": F.binary_cross_entropy_with_logits(v["x"], v["t"], pos_weight=v["pos_weight"])}, by=["x"])
    x = {"x": torch.tensor([-1e4, -60.0, 60.0, 1e4, 1e4, -1e4]), "t": torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 1.0])}
    f.add("bce_with_logits", {}, x, lambda v: {"loss": F.binary_cross_entropy_with_logits(v["x"], v["t"])}, by=["x"])
    pair = {"real": f.apart(*shape), "fake": f.apart(*shape)}
    f.add("hinge_d", {}, pair, lambda v: {"loss": F.relu(1 - v["real"]).mean() + F.relu(1 + v["fake"]).mean()})
    f.add("wgan_d", {}, pair, lambda v: {"loss": v["fake"].mean() - v["real"].mean()})

    def penalty(v):
        mix = (v["alpha"] * v["real"] + (1 - v["alpha"]) * v["fake"]).detach().requires_grad_()
        hidden = F.leaky_relu(F.conv2d(mix, v["w1"], v["b1"], 2, 1), 0.2)
        hidden = F.leaky_relu(F.conv2d(hidden, v["w2"], v["b2"], 2, 1), 0.2)
        score = F.conv2d(hidden, v["w3"], v["b3"]).sum()
        slope, = torch.autograd.grad(score, mix, create_graph=True)
        length = slope.flatten(1).norm(dim=1)
        return {"loss": weight * ((length - 1) ** 2).mean(), "grad_norm": length}
    weight, n, c, a, b = f.pick.uniform(1, 20), f.whole(1, 4), f.whole(1, 3), f.whole(2, 5), f.whole(2, 5)
    x = {"real": f.normal(n, c, 8, 8), "fake": f.normal(n, c, 8, 8), "alpha": f.unit(n, 1, 1, 1),
         "w1": f.normal(a, c, 4, 4, scale=0.3), "b1": f.normal(a, scale=0.1),
         "w2": f.normal(b, a, 4, 4, scale=0.2), "b2": f.normal(b, scale=0.1),
         "w3": f.normal(1, b, 2, 2, scale=0.3), "b3": f.normal(1, scale=0.1)}
    f.add("wgan_gp_penalty", {"weight": weight}, x, penalty, by=["w1", "b1", "w2", "b2", "w3"], aside=("grad_norm",))


def overlap(p, t, smooth):
    space = list(range(2, p.dim()))
    return 1 - ((2 * (p * t).sum(space) + smooth) / (p.sum(space) + t.sum(space) + smooth)).mean()


def segmentations(f):
    for dims in (2, 3):
        smooth, gamma = f.pick.choice((1.0, 1e-3)), f.pick.choice((1.0, 2.0, 3.5))
        shape = f.image(dims, 3, 6)
        x = {"x": f.normal(*shape, scale=2.0), "t": f.mask(*shape)}
        f.add("dice_sigmoid", {"smooth": smooth}, x,
              lambda v, s=smooth: {"loss": overlap(torch.sigmoid(v["x"]), v["t"], s)}, by=["x"])

        def focal(v, gamma=gamma):
            each = F.binary_cross_entropy_with_logits(v["x"], v["t"], reduction="none")
            return {"loss": ((1 - torch.exp(-each)) ** gamma * each).mean()}
        f.add("focal_sigmoid", {"gamma": gamma}, x, focal, by=["x"])
        classes = f.whole(2, 5)
        shape[1] = classes
        x = {"x": f.normal(*shape), "t": f.labels(classes, shape[0], *shape[2:])}
        f.add("dice_softmax", {"smooth": smooth}, x, lambda v, s=smooth, k=classes: {
            "loss": overlap(v["x"].softmax(1), F.one_hot(v["t"], k).movedim(-1, 1).to(v["x"].dtype), s)}, by=["x"])
        for ignore, smoothing, weighted in ((-100, 0.0, False), (255, 0.15, True), (0, 0.0, True), (1, 0.1, False)):
            x = {"x": f.normal(*shape), "t": f.labels(classes, shape[0], *shape[2:])}
            x["t"].view(-1)[::4] = ignore if ignore >= 0 else x["t"].view(-1)[::4]
            x["t"].view(-1)[1] = classes - 1 if ignore == 0 else 0
            if weighted:
                x["weight"] = f.unit(classes) + 0.1
            f.add("cross_entropy", {"ignore_index": ignore, "label_smoothing": smoothing}, x,
                  lambda v, i=ignore, s=smoothing: {"loss": F.cross_entropy(
                      v["x"], v["t"], v.get("weight"), ignore_index=i, label_smoothing=s)}, by=["x"])


def optimisers(f):
    settings = [
        (torch.optim.Adam, {"betas": (0.5, 0.99), "weight_decay": 0.05}), (torch.optim.Adam, {"amsgrad": True, "eps": 1e-6}),
        (torch.optim.Adam, {"betas": (0.0, 0.9)}), (torch.optim.AdamW, {"weight_decay": 0.2, "amsgrad": True}),
        (torch.optim.AdamW, {"betas": (0.8, 0.95)}), (torch.optim.SGD, {"weight_decay": 0.1}),
        (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.2, "weight_decay": 0.01}),
        (torch.optim.SGD, {"momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}),
        (torch.optim.RMSprop, {"momentum": 0.5, "weight_decay": 0.02}), (torch.optim.RMSprop, {"centered": True, "alpha": 0.95}),
        (torch.optim.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.2}),
    ]
    for kind, options in settings:
        options = {"lr": f.pick.uniform(1e-3, 5e-2), **options}
        n, steps = f.whole(3, 40), f.whole(3, 7)

        def run(v, kind=kind, options=options, steps=steps):
            p = torch.nn.Parameter(v["p"].clone())
            rule, after = kind([p], **options), {}
            for step in range(steps):
                p.grad = v[f"g{step}"].clone()
                rule.step()
                after[f"p_after_{step + 1}"] = p.detach().clone()
            return after
        x = {"p": f.normal(n), **{f"g{s}": f.normal(n, scale=10.0 ** -f.whole(0, 2)) for s in range(steps)}}
        attrs = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
        f.add(kind.__name__.lower(), attrs, x, run, by=[])
    for limit in (0.5, 1e3):
        def clip(v, limit=limit):
            held = [torch.nn.Parameter(torch.zeros_like(g)) for g in v.values()]
            for p, g in zip(held, v.values()):
                p.grad = g.clone()
            norm = torch.nn.utils.clip_grad_norm_(held, limit)
            return {"norm": norm, **{k: p.grad for k, p in zip(v, held)}}
        f.add("clip_grad_norm", {"max_norm": limit}, {f"g{i}": f.normal(*f.sizes(2, 1, 5)) for i in range(3)}, clip, by=[])
    decay, n = f.pick.uniform(0.5, 0.9999), f.whole(2, 20)
    f.add("ema", {"decay": decay}, {"e": f.normal(n), "p": f.normal(n)},
          lambda v: {"e": torch.lerp(v["p"], v["e"], decay)}, by=[])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", required=True, help="folder to write to")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=1, help="how often to go through all operations")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    fixtures = Fixtures(chosen.seed)
    for _ in range(chosen.rounds):
        for family in (convolutions, pools, norms, activations, shapes, distances, judgements, segmentations, optimisers):
            family(fixtures)
    fixtures.write(chosen.out)
    print(f"{len(fixtures.cases)} cases of {len({c['op'] for c in fixtures.cases})} operations")


if __name__ == "__main__":
    main()
