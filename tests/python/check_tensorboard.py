"""Reads an event folder that `tests/tensorboard.rs` wrote with TensorBoard's own readers and checks what is in it.

    python tests/python/check_tensorboard.py FOLDER

Needs tensorboard, numpy and pillow. Prints `tensorboard agrees` and exits with 0, or fails with the first difference.
"""

import io
import sys
import warnings

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.pr_curve import metadata as pr_metadata
from tensorboard.util import tensor_util


def pixels(width, height, channels):
    """Every pixel differs from its neighbours, in all directions."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return ((7 * x + 29 * y + 83 * c) % 256).astype(np.uint8).squeeze()


def check_scalars(events):
    # The first run logged steps 1 to 10 and was resumed from step 6, then logged 7 to 9 with other values.
    points = events.Scalars("loss/G_GAN")
    assert [p.step for p in points] == list(range(1, 10)), [p.step for p in points]
    expected = [np.float32(s / 3) for s in range(1, 7)] + [np.float32(100 + s) for s in range(7, 10)]
    assert [np.float32(p.value) for p in points] == expected, [p.value for p in points]
    # A tag that the resumed run has not written again must have lost its orphans too.
    assert [p.step for p in events.Scalars("val/psnr")] == [5], events.Scalars("val/psnr")
    special = events.Scalars("special")
    assert special[0].value == np.inf and np.isnan(special[1].value), special
    assert all(p.wall_time > 1.6e9 for p in points)


def check_images(events):
    for tag, width, height, channels in [("images/grey", 13, 7, 1), ("images/rgb", 6, 11, 3)]:
        (event,) = events.Images(tag)
        assert (event.step, event.width, event.height) == (8, width, height), (tag, event.step)
        decoded = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert np.array_equal(decoded, pixels(width, height, channels)), tag


def check_histogram(events):
    values = np.arange(-500, 1500) / 100.0
    (event,) = events.Histograms("weights/G")
    h = event.histogram_value
    assert event.step == 8 and h.num == len(values)
    assert h.min == np.float32(-5.0) and h.max == np.float32(14.99), (h.min, h.max)
    assert abs(h.sum - values.sum()) < 1e-3 and abs(h.sum_squares - (values**2).sum()) < 1e-2
    # Every bucket holds the values between the limit before it and its own.
    values32 = values.astype(np.float32).astype(np.float64)
    limits = np.array(h.bucket_limit)
    expected = [np.sum((values32 >= a) & (values32 < b)) for a, b in zip(np.r_[-np.inf, limits[:-1]], limits)]
    assert list(h.bucket) == expected
    assert sum(h.bucket) == len(values)


def check_text(tensors):
    (event,) = tensors.Tensors("recipe")
    assert event.tensor_proto.string_val[0].decode() == "# Recipe\n\n`lr = 2e-4` – ümläut\n"
    assert tensors.SummaryMetadata("recipe").plugin_data.plugin_name == "text"


def check_hparams(tensors):
    content = tensors.PluginTagToContent("hparams")
    start = hparams_metadata.parse_session_start_info_plugin_data(content[hparams_metadata.SESSION_START_INFO_TAG])
    assert start.hparams["lr"].number_value == 2e-4
    assert start.hparams["generator"].string_value == "unet256"
    assert start.hparams["dropout"].bool_value is True
    assert len(start.hparams) == 3 and start.start_time_secs > 1.6e9
    end = hparams_metadata.parse_session_end_info_plugin_data(content[hparams_metadata.SESSION_END_INFO_TAG])
    assert end.status == 1 and end.end_time_secs >= start.start_time_secs
    (final,) = tensors.Tensors("final/psnr")
    assert final.step == 9


def check_pr_curve(tensors):
    assert tensors.SummaryMetadata("pr/TC").plugin_data.plugin_name == "pr_curves"
    content = tensors.SummaryMetadata("pr/TC").plugin_data.content
    assert pr_metadata.parse_plugin_metadata(content).num_thresholds == 101
    (event,) = tensors.Tensors("pr/TC")
    rows = tensor_util.make_ndarray(event.tensor_proto)
    assert event.step == 9 and rows.shape == (6, 101), rows.shape
    p = (np.arange(1000) / 1000).astype(np.float32)
    truth = np.arange(1000) % 3 == 0
    for i in range(101):
        yes = p >= np.float32(i / 100)
        tp, fp, tn, fn = (np.sum(m) for m in (yes & truth, yes & ~truth, ~yes & ~truth, ~yes & truth))
        precision = tp / (tp + fp) if tp + fp else 1.0
        expected = np.float32([tp, fp, tn, fn, precision, tp / (tp + fn)])
        assert np.array_equal(rows[:, i], expected), (i, rows[:, i], expected)


def check_graph(events):
    graph = events.Graph()
    nodes = {n.name: n for n in graph.node}
    assert len(nodes) == len(graph.node), "two nodes of one name"
    (conv,) = [n for n in graph.node if n.op == "conv"]
    assert conv.name.startswith("G_forward/G/"), conv.name
    shape = [d.size for d in conv.attr["_output_shapes"].list.shape[0].dim]
    assert shape == [3, 8, 8, 4], shape
    # Every edge leads from a node that is there; a convolution reads the image and its weight.
    assert all(i in nodes for n in graph.node for i in n.input)
    assert sorted(nodes[i].op for i in conv.input) == ["Input", "Parameter"], conv.input
    assert any(n.name.startswith("G_loss/") for n in graph.node)
    # Neither derivatives nor the optimiser.
    assert not any("conv_grad" in n.op or "adam" in n.op.lower() or "optimiser" in n.name for n in graph.node)


def check_plugin_reader(tensors):
    """The reader behind the web page, which turns every summary into a tensor of its plug-in."""
    plugins = {
        "loss/G_GAN": "scalars",
        "images/rgb": "images",
        "weights/G": "histograms",
    }
    for tag, name in plugins.items():
        assert tensors.SummaryMetadata(tag).plugin_data.plugin_name == name, tag
    assert [t.step for t in tensors.Tensors("loss/G_GAN")] == list(range(1, 10))
    # A tag that the resumed run has not written again.
    assert [t.step for t in tensors.Tensors("val/psnr")] == [5]


def main(folder):
    warnings.simplefilter("ignore")
    everything = {k: 0 for k in (event_accumulator.IMAGES, event_accumulator.SCALARS, event_accumulator.TENSORS)}
    events = event_accumulator.EventAccumulator(folder, size_guidance=everything).Reload()
    check_scalars(events)
    check_images(events)
    check_histogram(events)
    tensors = plugin_event_accumulator.EventAccumulator(
        folder, size_guidance={plugin_event_accumulator.TENSORS: 0}
    ).Reload()
    check_text(tensors)
    check_hparams(tensors)
    check_pr_curve(tensors)
    check_graph(events)
    check_plugin_reader(tensors)
    print("tensorboard agrees")


if __name__ == "__main__":
    main(sys.argv[1])
