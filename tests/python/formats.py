#!/usr/bin/env python3
"""Images of other formats than NIfTI, as Pillow and SimpleITK write and read them.

Usage: formats.py write FOLDER          writes files, and what is in them to expected.json
       formats.py check EXPECTED FILE.. reads files and compares each with the JSON file's dims, affine and values

Values are listed with i running fastest; affines take voxel indices to mm in RAS. Exit status 0 if all agree.
"""

import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

LPS = np.diag([-1.0, -1.0, 1.0])
UPRIGHT = [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]]


def affine(image):
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)
    full = np.eye(3)
    full[: direction.shape[0], : direction.shape[1]] = direction
    spacing = list(image.GetSpacing()) + [1.0] * (3 - image.GetDimension())
    origin = list(image.GetOrigin()) + [0.0] * (3 - image.GetDimension())
    return np.column_stack([LPS @ full @ np.diag(spacing), LPS @ np.array(origin)])


def entry(array, matrix):
    dims = list(array.shape[::-1]) + [1] * (3 - array.ndim)
    return {"dims": dims, "affine": np.asarray(matrix, float).tolist(), "values": array.ravel().astype(float).tolist()}


def write(folder):
    rng = np.random.default_rng(5)
    expected = {}

    def picture(name, image, values):
        image.save(folder / name)
        expected[name] = entry(np.asarray(values, np.float32), UPRIGHT)

    grey = rng.integers(0, 256, (5, 7), np.uint8)
    deep = rng.integers(0, 65536, (5, 7), np.uint16)
    colours = rng.integers(0, 256, (5, 7, 3), np.uint8)
    luminance = colours @ np.array([0.299, 0.587, 0.114])
    alpha = np.concatenate([colours, rng.integers(0, 256, (5, 7, 1), np.uint8)], axis=2)
    bits = rng.integers(0, 2, (5, 11), np.uint8)
    picture("grey.png", Image.fromarray(grey), grey)
    picture("deep.png", Image.fromarray(deep), deep)
    picture("rgb.png", Image.fromarray(colours), luminance)
    picture("rgba.png", Image.fromarray(alpha), luminance)
    picture("grey-rgb.png", Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)), grey)
    picture("bits.png", Image.fromarray(bits * 255).convert("1"), bits * 255)
    indexed = Image.fromarray(rng.integers(0, 4, (5, 7), np.uint8), "P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture("indexed.png", indexed, np.asarray(indexed))
    picture("grey.tif", Image.fromarray(grey), grey)
    picture("deep.tif", Image.fromarray(deep), deep)
    picture("float.tif", Image.fromarray(deep.astype(np.float32) / 7), deep.astype(np.float32) / 7)
    Image.fromarray(deep).save(folder / "lzw.tif", compression="tiff_lzw")
    expected["lzw.tif"] = entry(deep, UPRIGHT)
    Image.fromarray(colours).save(folder / "deflate.tif", compression="tiff_adobe_deflate")
    expected["deflate.tif"] = entry(luminance, UPRIGHT)
    smooth = np.clip(np.add.outer(np.arange(16) * 4, np.arange(24) * 3) + 40, 0, 255).astype(np.uint8)
    Image.fromarray(smooth).save(folder / "smooth.jpg", quality=95)
    expected["smooth.jpg"] = entry(np.asarray(Image.open(folder / "smooth.jpg")), UPRIGHT)

    angle = 0.3
    turned = [np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1]
    for kind in ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]:
        low, high = (-100, 100) if not kind.startswith("u") else (0, 200)
        array = rng.integers(low, high, (3, 4, 5)).astype(kind)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing([0.7, 1.1, 2.5])
        image.SetOrigin([-31.5, 12.25, 7.0])
        image.SetDirection(turned)
        for ending, compress in [("nrrd", False), ("nrrd", True), ("mha", False), ("mha", True), ("mhd", False), ("nhdr", True)]:
            name = f"{kind}{'-z' if compress else ''}.{ending}"
            sitk.WriteImage(image, folder / name, useCompression=compress)
            expected[name] = entry(array, affine(image))
    flat = sitk.GetImageFromArray(grey)
    flat.SetSpacing([0.5, 0.25])
    flat.SetOrigin([3.0, 4.0])
    for name in ["flat.mha", "flat.nrrd"]:
        sitk.WriteImage(flat, folder / name)
        expected[name] = entry(grey, affine(flat))
    text = "NRRD0004\n# by hand\ntype: short\ndimension: 3\nsizes: 2 1 3\nencoding: ascii\nendian: little\nspace: RAS\n"
    text += "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)\nkey:=value\n\n1 2 3 4 5 -6\n"
    (folder / "text.nrrd").write_text(text)
    expected["text.nrrd"] = {"dims": [2, 1, 3], "affine": [[2, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3]], "values": [1, 2, 3, 4, 5, -6]}
    big = np.arange(6, dtype=">i2")
    header = "ObjectType = Image\r\nNDims = 3\r\nBinaryData = True\r\nBinaryDataByteOrderMSB = True\r\nDimSize = 1 2 3\r\nElementType = MET_SHORT\r\nElementDataFile = LOCAL\r\n"
    (folder / "big.mha").write_bytes(header.encode() + big.tobytes())
    expected["big.mha"] = {"dims": [1, 2, 3], "affine": UPRIGHT, "values": big.tolist()}
    (folder / "expected.json").write_text(json.dumps(expected))


def check(expected, files):
    want = json.loads(Path(expected).read_text())
    for name in files:
        image = sitk.ReadImage(name)
        values = sitk.GetArrayFromImage(image)
        dims = list(image.GetSize()) + [1] * (3 - image.GetDimension())
        assert dims == want["dims"], f"{name}: {dims}"
        assert np.allclose(values.ravel(), want["values"], rtol=1e-6), f"{name}: other values"
        if not name.endswith(".png"):
            assert np.allclose(affine(image), want["affine"], atol=1e-6), f"{name}: {affine(image)}"
        print(f"{name} agrees")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        check(sys.argv[2], sys.argv[3:])
