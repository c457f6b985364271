"""Reads the events of two whole runs (a pix2pix and a segmentation) with TensorBoard's own readers and compares them with
what else is in the runs' folders.

    python tests/python/check_run_events.py PIX2PIX SEGMENTATION

Needs tensorboard, numpy and pillow. Prints `tensorboard agrees` and exits with 0, or fails with the first difference.
"""

import csv
import io
import json
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util


def classic(folder):
    kinds = (event_accumulator.IMAGES, event_accumulator.SCALARS, event_accumulator.HISTOGRAMS)
    guidance = {k: 0 for k in kinds}
    return event_accumulator.EventAccumulator(str(folder), size_guidance=guidance).Reload()


def modern(folder):
    guidance = {plugin_event_accumulator.TENSORS: 0}
    return plugin_event_accumulator.EventAccumulator(str(folder), size_guidance=guidance).Reload()


def table(run):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return {c: {int(r["step"]): float(r[c]) for r in rows if r[c]} for c in rows[0] if c != "step"}


def tensors(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    data = raw[8 + length :]
    return {
        k: np.frombuffer(data[slice(*v["data_offsets"])], "<f4").reshape(v["shape"]) for k, v in header.items()
    }


def check_scalars(run, events):
    columns = table(run)
    for name, points in columns.items():
        folder = "val" if name.startswith("val/") or name in ("health/diversity", "health/nearest") else "train"
        read = events[folder].Scalars(name)
        # Each step once, in order: nothing is left of steps that were done again.
        assert [p.step for p in read] == sorted(points), (name, [p.step for p in read], sorted(points))
        for p in read:
            assert np.float32(points[p.step]) == np.float32(p.value), (name, p)
    for name in ("perf/step_ms", "perf/images_per_s"):
        assert all(p.value > 0 for p in events["train"].Scalars(name)), name
    return columns


def check_images(run, events):
    tag = "images/input_target_output_error"
    for event in events["val"].Images(tag):
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        saved = np.asarray(Image.open(run / "samples" / f"step-{event.step:07}.png"))
        assert np.array_equal(shown, saved) and shown.shape[:2] == (event.height, event.width), event.step
    assert {"images/real_A", "images/real_B", "images/fake_B"} <= set(events["val"].Tags()["images"])


def check_histograms(run, events, nets):
    tags = set(events["train"].Tags()["histograms"])
    for net in nets:
        last = tensors(run / "checkpoints" / f"last_net_{net}.safetensors")
        weights = {k: v for k, v in last.items() if "running_" not in k}
        assert {t for t in tags if t.startswith(f"weights/{net}/")} == {f"weights/{net}/{k}" for k in weights}
        assert {t for t in tags if t.startswith(f"gradients/{net}/")} == {f"gradients/{net}/{k}" for k in weights}
        for key, value in weights.items():
            read = events["train"].Histograms(f"weights/{net}/{key}")[-1].histogram_value
            assert read.num == value.size and sum(read.bucket) == value.size, key
            assert (np.float32(read.min), np.float32(read.max)) == (value.min(), value.max()), key
            assert np.isclose(read.sum, value.astype(np.float64).sum(), atol=1e-9 * value.size), key
        # The norm of all gradients is the one that was logged.
        for event in events["train"].Scalars(f"grad_norm/{net}"):
            parts = [
                h.histogram_value.sum_squares
                for k in weights
                for h in events["train"].Histograms(f"gradients/{net}/{k}")
                if h.step == event.step
            ]
            if parts:
                assert np.isclose(np.sqrt(sum(parts)), event.value, rtol=1e-4), (net, event.step)


def check_hparams(events, expected, metrics):
    content = events["val plugins"].PluginTagToContent("hparams")
    start = hparams_metadata.parse_session_start_info_plugin_data(content[hparams_metadata.SESSION_START_INFO_TAG])
    for name, value in expected.items():
        kind = {str: "string_value", bool: "bool_value"}.get(type(value), "number_value")
        assert getattr(start.hparams[name], kind) == value, name
    assert not any("dir" in name for name in start.hparams)
    end = hparams_metadata.parse_session_end_info_plugin_data(content[hparams_metadata.SESSION_END_INFO_TAG])
    assert end.status == 1
    for name, value in metrics.items():
        assert np.float32(events["val"].Scalars(name)[-1].value) == np.float32(value), name


def check_texts(run, events):
    (recipe,) = events["train plugins"].Tensors("recipe")
    text = recipe.tensor_proto.string_val[0].decode()
    assert (run / "recipe.toml").read_text().strip() in text
    (about,) = events["train plugins"].Tensors("run")
    assert "gan train" in about.tensor_proto.string_val[0].decode()


def check_graph(events, boxes):
    nodes = {n.name: n for n in events["train"].Graph().node}
    assert {n.split("/")[0] for n in nodes} >= boxes, sorted({n.split("/")[0] for n in nodes})
    assert all(i in nodes for n in nodes.values() for i in n.input)
    assert all(n.attr["_output_shapes"].list.shape for n in nodes.values())


def check_curves(events, names, columns):
    for name in names:
        event = events["val plugins"].Tensors(f"pr/{name}")[-1]
        assert events["val plugins"].SummaryMetadata(f"pr/{name}").plugin_data.plugin_name == "pr_curves"
        tp, fp, tn, fn, precision, recall = tensor_util.make_ndarray(event.tensor_proto).astype(np.float64)
        total = tp + fp + tn + fn
        assert np.all(total == total[0]) and total[0] > 0 and fn[0] == 0 and tn[0] == 0
        assert np.all(np.diff(tp) <= 0) and np.all(np.diff(fp) <= 0)
        assert np.allclose(precision, np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 1), atol=1e-6)
        assert np.allclose(recall, np.where(tp + fn > 0, tp / np.maximum(tp + fn, 1), 1), atol=1e-6)
        false_rate = fp / np.maximum(fp + tn, 1)
        dice = np.where(tp + fp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), 1)
        check_plot(events, f"roc/{name}", false_rate, recall)
        check_plot(events, f"dice_by_threshold/{name}", np.arange(len(dice)) / (len(dice) - 1), dice)
        x, y = np.append(false_rate, 0), np.append(recall, 0)
        area = np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:])) / 2
        assert np.isclose(events["val"].Scalars(f"roc_auc/{name}")[-1].value, area, atol=1e-6), name


def check_plot(events, tag, x, y):
    """Every point of a curve is drawn where it belongs; a pixel to the side for what is rounded the other way."""
    picture = np.asarray(Image.open(io.BytesIO(events["val"].Images(tag)[-1].encoded_image_string)))
    assert picture.shape == (301, 301, 3), picture.shape
    drawn = np.pad(np.all(picture == (31, 78, 160), axis=2), 1)
    column, row = np.rint(300 * x).astype(int), 300 - np.rint(300 * y).astype(int)
    assert all(drawn[r : r + 3, c : c + 3].any() for r, c in zip(row, column)), tag


def read(run):
    events = {f: classic(run / f) for f in ("train", "val")}
    events |= {f"{f} plugins": modern(run / f) for f in ("train", "val")}
    return events


def main(pix2pix, segmentation):
    warnings.simplefilter("ignore")
    run, events = pix2pix, read(pix2pix)
    columns = check_scalars(run, events)
    assert {"loss/G_GAN", "loss/G_L1", "lr/G", "health/D_acc_real", "grad_norm/G", "val/psnr"} <= set(columns)
    check_images(run, events)
    check_histograms(run, events, ["G", "D"])
    settings = {"optimiser.lr": 2e-4, "model.kind": "pix2pix", "data.share_subjects": False, "train.batch": 2}
    last = max(columns["loss/G_L1"])
    best = max(columns["val/psnr"].values())
    check_hparams(events, settings, {"final/G_L1": columns["loss/G_L1"][last], "final/best_psnr": best})
    check_texts(run, events)
    check_graph(events, {"input", "target", "G_forward", "D_real", "D_fake", "G_loss"})
    # Each call of the discriminator has its own weights beside it, and nothing of derivatives and optimisers is there.
    nodes = events["train"].Graph().node
    assert not any(n.name.startswith(("D_backward", "G_backward", "optimiser", "metric")) for n in nodes)
    for box in ("D_real", "D_fake"):
        inside = [n for n in nodes if n.name.startswith(box)]
        assert sum(n.op == "Parameter" for n in inside) >= 3, box
        assert not any(i.startswith(("D_real", "D_fake")) and not i.startswith(box) for n in inside for i in n.input)

    run, events = segmentation, read(segmentation)
    columns = check_scalars(run, events)
    check_images(run, events)
    check_histograms(run, events, ["U"])
    check_hparams(events, {"model.kind": "supervised", "loss.dice": 1.0}, {"final/best_dice": max(columns["val/dice"].values())})
    check_texts(run, events)
    check_graph(events, {"input", "target", "U_forward", "U_loss"})
    check_curves(events, ["WT", "TC"], columns)
    print("tensorboard agrees")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
