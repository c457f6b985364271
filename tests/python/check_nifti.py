#!/usr/bin/env python3
"""Checks a written volume against the image it was made from, with nibabel.

Usage: check_nifti.py REFERENCE WRITTEN [REFERENCE WRITTEN ...]

Same 3-D shape, affine, axis codes, qform and sform with their codes, and units; stored as float32 with no scaling
and no NaN. Exit status 0 if all pairs agree, 1 otherwise.
"""

import sys

import nibabel as nib
import numpy as np


def differences(reference_path, written_path):
    reference, written = nib.load(reference_path), nib.load(written_path)
    a, b = reference.header, written.header
    shape = tuple(reference.shape[:3]) + (1,) * (3 - len(reference.shape))
    slope, inter = b.get_slope_inter()
    checks = [
        ("class", type(reference).__name__.replace("Pair", "Image"), type(written).__name__),
        ("shape", shape, tuple(written.shape)),
        ("axis codes", nib.aff2axcodes(reference.affine), nib.aff2axcodes(written.affine)),
        ("affine", reference.affine.tolist(), written.affine.tolist()),
        ("qform code", int(a["qform_code"]), int(b["qform_code"])),
        ("sform code", int(a["sform_code"]), int(b["sform_code"])),
        ("qform", a.get_qform().tolist(), b.get_qform().tolist()),
        ("sform", a.get_sform().tolist(), b.get_sform().tolist()),
        ("units", a.get_xyzt_units(), b.get_xyzt_units()),
        ("stored type", "float32", b.get_data_dtype().newbyteorder("=").name),
        ("slope", 1.0, 1.0 if slope is None else float(slope)),
        ("intercept", 0.0, 0.0 if inter is None else float(inter)),
        ("voxels that are no number", 0, int(np.sum(~np.isfinite(np.asanyarray(written.dataobj))))),
    ]
    return [f"{name}: {want} expected, {got} found" for name, want, got in checks if want != got]


def main(arguments):
    if len(arguments) < 2 or len(arguments) % 2:
        sys.exit(__doc__)
    failed = False
    for reference, written in zip(arguments[::2], arguments[1::2]):
        found = differences(reference, written)
        failed |= bool(found)
        print(f"{written}: {'; '.join(found) if found else 'agrees with ' + reference}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
