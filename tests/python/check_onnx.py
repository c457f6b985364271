"""Runs ONNX files that `tests/onnx.rs` wrote in onnxruntime and compares with the answers beside them.

    python tests/python/check_onnx.py FOLDER

FOLDER/cases.txt has a line per case: the model, the input's extents, the output's extents; case N's numbers are in N.x and
N.y, float32. Needs numpy, onnx and onnxruntime. Prints `onnxruntime agrees` and exits with 0, or fails with the first difference.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main(folder):
    sessions = {}
    for i, line in enumerate((folder / "cases.txt").read_text().splitlines()):
        name, x_shape, y_shape = line.split()
        path = folder / f"{name}.onnx"
        if name not in sessions:
            onnx.checker.check_model(str(path), full_check=True)
            model = onnx.load(str(path))
            assert {p.key: p.value for p in model.metadata_props} == {"about": name}, model.metadata_props
            sessions[name] = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shape = lambda text: [int(n) for n in text.split("x")]
        x = np.fromfile(folder / f"{i}.x", np.float32).reshape(shape(x_shape))
        expected = np.fromfile(folder / f"{i}.y", np.float32).reshape(shape(y_shape))
        (y,) = sessions[name].run(None, {"input": x})
        assert y.shape == expected.shape, (line, y.shape)
        worst = np.abs(y - expected).max() / max(1, np.abs(expected).max())
        assert worst <= 1e-5, (line, worst)
        print(line, worst)
    print("onnxruntime agrees")


main(Path(sys.argv[1]))
