"""Writes tests/goldens/metrics/metrics.json: what MONAI and scikit-image say about inputs that both sides can make.

Needs numpy, scipy, torch, monai and scikit-image. Run from anywhere:

    python tests/python/golden_metrics.py

No input is stored. Every number comes from one integer hash of (seed, index), the same in `tests/metrics.rs`:

    h = (seed * 0x9E3779B97F4A7C15 + (index + 1) * 0xBF58476D1CE4E5B9) mod 2^64
    h ^= h >> 30;  h *= 0xBF58476D1CE4E5B9;  h ^= h >> 27;  h *= 0x94D049BB133111EB;  h ^= h >> 31   (mod 2^64)
    uniform(seed, index) = (h >> 11) / 2^53

MONAI computes in 32 bits by default, which is too coarse a reference for 1e-6 (SSIM subtracts nearly equal moments),
so its `torch.float` is replaced by 64 bits while it runs.
"""

import contextlib
import json
import pathlib
import warnings

import numpy as np
import scipy.stats
import skimage.metrics
import torch
from monai.metrics import compute_hausdorff_distance
from monai.metrics.confusion_matrix import compute_confusion_matrix_metric, get_confusion_matrix
from monai.metrics.meandice import DiceHelper
from monai.metrics.regression import compute_ms_ssim, compute_ssim_and_cs

OUT = pathlib.Path(__file__).resolve().parent.parent / "goldens" / "metrics" / "metrics.json"


def uniform(seed, n):
    m = np.uint64(0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        h = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        h = h + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) & m
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB) & m
        h = h ^ (h >> np.uint64(31))
    return (h >> np.uint64(11)).astype(np.float64) / 2.0**53


@contextlib.contextmanager
def sixty_four_bits():
    saved = torch.float, torch.float32, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.float = torch.float32 = torch.float64
    try:
        yield
    finally:
        torch.float, torch.float32 = saved[:2]
        torch.set_default_dtype(saved[2])


def squeeze(dims):
    return dims[1:] if dims[0] == 1 else dims


def tensor(a):
    return torch.from_numpy(np.ascontiguousarray(a))[None, None]


def finite(v):
    """JSON has no infinity and no NaN."""
    v = float(v)
    return v if np.isfinite(v) else ("nan" if np.isnan(v) else "inf" if v > 0 else "-inf")


# Images ------------------------------------------------------------------------------------------------------------

IMAGES = [
    # name, dims [depth, height, width], data range, kind
    ("2D noise", [1, 16, 21], 1.0, "noise"),
    ("2D smallest", [1, 11, 11], 1.0, "noise"),
    ("2D similar", [1, 40, 33], 1.0, "similar"),
    ("2D signed", [1, 32, 32], 2.0, "signed"),
    ("2D CT range", [1, 30, 28], 4024.0, "ct"),
    ("2D equal", [1, 20, 20], 1.0, "equal"),
    ("2D constant", [1, 20, 20], 1.0, "constant"),
    ("2D zero target", [1, 20, 20], 1.0, "zero"),
    ("2D both zero", [1, 20, 20], 1.0, "both zero"),
    ("2D inverted", [1, 24, 24], 1.0, "inverted"),
    ("3D noise", [12, 13, 14], 1.0, "noise"),
    ("3D smallest", [11, 11, 11], 1.0, "noise"),
    ("3D similar", [16, 12, 20], 1.0, "similar"),
    ("3D signed", [14, 15, 13], 2.0, "signed"),
    ("3D offset", [13, 12, 11], 1.0, "offset"),
    ("3D equal", [12, 12, 12], 1.0, "equal"),
]


def image_pair(kind, dims, seed):
    n = int(np.prod(dims))
    a, b = uniform(seed, n), uniform(seed + 1, n)
    x, y = {
        "noise": (a, b),
        "similar": (a, 0.9 * a + 0.1 * b),
        "signed": (2.0 * a - 1.0, 2.0 * (0.5 * a + 0.5 * b) - 1.0),
        "ct": (4024.0 * a - 1024.0, 4024.0 * (0.8 * a + 0.2 * b) - 1024.0),
        "equal": (a, a),
        "constant": (np.full(n, 0.25), np.full(n, 0.75)),
        "zero": (a, np.zeros(n)),
        "both zero": (np.zeros(n), np.zeros(n)),
        "inverted": (1.0 - a, a),
        "offset": (0.5 * a + 0.3, 0.5 * a),
    }[kind]
    return x.reshape(dims), y.reshape(dims)


def image_case(name, dims, data_range, kind, seed):
    x, y = image_pair(kind, dims, seed)
    xs, ys = x.reshape(squeeze(dims)), y.reshape(squeeze(dims))
    axes = xs.ndim
    with sixty_four_bits():
        ssim, _ = compute_ssim_and_cs(
            tensor(xs),
            tensor(ys),
            spatial_dims=axes,
            data_range=data_range,
            kernel_size=[11] * axes,
            kernel_sigma=[1.5] * axes,
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        psnr = skimage.metrics.peak_signal_noise_ratio(ys, xs, data_range=data_range)
        nmse = np.sum((xs - ys) ** 2) / np.sum(ys**2)
    return {
        "name": name,
        "dims": dims,
        "range": data_range,
        "kind": kind,
        "seed": seed,
        "mae": finite(np.mean(np.abs(xs - ys))),
        "mse": finite(skimage.metrics.mean_squared_error(ys, xs)),
        "nmse": finite(nmse),
        "psnr": finite(psnr),
        "ssim_gaussian": finite(ssim.mean()),
        "ssim_uniform": finite(skimage.metrics.structural_similarity(ys, xs, data_range=data_range)),
    }


def ms_ssim_case(dims, weights, kind, seed):
    x, y = image_pair(kind, dims, seed)
    xs, ys = x.reshape(squeeze(dims)), y.reshape(squeeze(dims))
    with sixty_four_bits():
        value = compute_ms_ssim(tensor(xs), tensor(ys), spatial_dims=xs.ndim, data_range=1.0, weights=weights)
    return {"dims": dims, "weights": weights, "kind": kind, "seed": seed, "ms_ssim": finite(value)}


# Masks -------------------------------------------------------------------------------------------------------------

MASKS = ["empty", "full", "one voxel", "corner voxel", "sparse", "half", "dense", "ball", "box", "shell"]


def mask(kind, dims, seed):
    n = int(np.prod(dims))
    u = uniform(seed, n).reshape(dims)
    grid = np.indices(dims).astype(np.float64)
    centre = [uniform(seed + 7, 3)[a] * (dims[a] - 1) for a in range(3)]
    r2 = sum(((grid[a] - centre[a]) / max(1.0, 0.35 * dims[a])) ** 2 for a in range(3))
    index = np.arange(n).reshape(dims)
    return {
        "empty": np.zeros(dims, bool),
        "full": np.ones(dims, bool),
        "one voxel": index == int(uniform(seed + 9, 1)[0] * n),
        "corner voxel": index == n - 1,
        "sparse": u < 0.05,
        "half": u < 0.5,
        "dense": u < 0.95,
        "ball": r2 < 1.0,
        "box": np.all([(grid[a] >= dims[a] // 4) & (grid[a] < max(1, dims[a] // 2 + 1)) for a in range(3)], axis=0),
        "shell": (r2 < 1.0) & (r2 > 0.4),
    }[kind]


def mask_case(prediction, truth, dims, spacing, seed):
    p, t = mask(prediction, dims, seed), mask(truth, dims, seed + 100)
    ps, ts = (m.reshape(squeeze(dims)) for m in (p, t))
    with sixty_four_bits(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = spacing[1:] if dims[0] == 1 else spacing
        if ps.any() == ts.any():
            hd95, hd = (
                compute_hausdorff_distance(
                    tensor(ps), tensor(ts), include_background=True, percentile=q, spacing=step
                ).item()
                for q in (95, None)
            )
        else:
            hd95 = hd = None  # MONAI says infinity; ours is the image's diagonal.
        dice = DiceHelper(include_background=True, ignore_empty=False, sigmoid=False, softmax=False, activate=False)
        table = get_confusion_matrix(tensor(ps).double(), tensor(ts).double(), include_background=True).double()
        names = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "precision", "accuracy": "accuracy"}
        ratios = {ours: finite(compute_confusion_matrix_metric(theirs, table).item()) for ours, theirs in names.items()}
        score = dice(tensor(ps).double(), tensor(ts).double())[0].item()
    counts = [int(v) for v in table.flatten().tolist()]  # TP, FP, TN, FN
    return {
        "prediction": prediction,
        "truth": truth,
        "dims": dims,
        "spacing": spacing,
        "seed": seed,
        "counts": counts,
        "dice": finite(score),
        "hd95": hd95 if hd95 is None else finite(hd95),
        "hd": hd if hd is None else finite(hd),
        **ratios,
    }


def mask_cases():
    geometries = [
        ([1, 12, 15], [1.0, 1.0, 1.0]),
        ([1, 20, 9], [1.0, 2.5, 0.4]),
        ([7, 8, 9], [1.0, 1.0, 1.0]),
        ([5, 12, 10], [5.0, 0.9375, 0.9375]),
        ([10, 6, 14], [0.65, 3.0, 1.2]),
    ]
    pairs = [(a, b) for a in MASKS for b in MASKS]
    for i, (a, b) in enumerate(pairs):
        # A shift per row, or each pair of a row would always meet the same geometry.
        dims, spacing = geometries[(i + i // len(MASKS)) % len(geometries)]
        yield mask_case(a, b, dims, spacing, 1000 + 10 * i)


# Statistics --------------------------------------------------------------------------------------------------------


def interval_case(n, seed):
    v, w = 30.0 + 4.0 * uniform(seed, n), 29.5 + 4.0 * uniform(seed + 1, n)
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=v.mean(), scale=scipy.stats.sem(v))
    return {
        "n": n,
        "seed": seed,
        "mean": float(v.mean()),
        "sd": float(v.std(ddof=1)),
        "low": float(low),
        "high": float(high),
        "p_value": float(scipy.stats.ttest_rel(v, w).pvalue),
    }


def main():
    five = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    goldens = {
        "hash_check": [float(v) for v in uniform(42, 3)],
        "images": [image_case(*spec, seed=10 * i) for i, spec in enumerate(IMAGES)],
        "ms_ssim": [
            ms_ssim_case([1, 176, 181], five, "similar", 500),
            ms_ssim_case([1, 180, 177], five, "noise", 510),
            ms_ssim_case([1, 45, 47], [0.3, 0.4, 0.3], "similar", 520),
            ms_ssim_case([1, 46, 44], [0.3, 0.4, 0.3], "inverted", 530),
            ms_ssim_case([23, 25, 22], [0.6, 0.4], "similar", 540),
        ],
        "masks": list(mask_cases()),
        "intervals": [interval_case(n, 700 + 2 * n) for n in (2, 3, 5, 10, 33, 200)],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(goldens, separators=(",", ":")).replace('},{', '},\n{') + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(goldens['masks'])} mask pairs, {len(goldens['images'])} images")


if __name__ == "__main__":
    main()
