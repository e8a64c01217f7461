"""Export a student as one ONNX file: `python -m i2i_lib.export STUDENT --to onnx --precision int8`."""

import argparse
import sys
from typing import get_args

from i2i_lib.artifacts import without_suffix
from i2i_lib.commands import one_line_errors
from i2i_lib.export.onnx import Precision, export_onnx


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m i2i_lib.export", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("student", help="path of a saved student, without suffix")
    parser.add_argument("--to", choices=["onnx"], default="onnx")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--size", default="dynamic", help="side of the pictures in pixels, or dynamic (the default)")
    parser.add_argument("--out", help="the file to write; by default STUDENT-PRECISION.onnx")
    parser.add_argument("--calibrate", metavar="DATA", help="a saved task, without suffix; by default data beside it")
    given = parser.parse_args(arguments)
    if given.size != "dynamic" and not given.size.isdigit():
        raise ValueError(f"--size is a number of pixels or dynamic, got {given.size!r}")
    size = None if given.size == "dynamic" else int(given.size)
    student = without_suffix(given.student)
    done = export_onnx(student, given.out, precision=given.precision, size=size, calibrate=given.calibrate)
    print(
        f"{done.path}: {done.precision}, {done.size / 1e3:,.0f} kB; against PyTorch: largest difference"
        f" {done.largest:.2g}, PSNR {done.psnr:.1f} dB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
