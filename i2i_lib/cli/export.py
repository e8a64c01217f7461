"""Export a student as one ONNX file, checked against PyTorch.

The file takes `source`, float32 [N, C, H, W] in [-1, 1], and returns `image` of the same size. It appears only after
ONNX Runtime has made PyTorch's pictures with it.
"""

import argparse

from i2i_lib.cli.result import Result

EXTRAS = "export"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("student", metavar="STUDENT", help="a saved student, such as student/student")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32", help="default: %(default)s")
    parser.add_argument("--size", default="dynamic", help="side of the pictures in pixels; default: any size")
    parser.add_argument("--out", help="the file to write; default: STUDENT-PRECISION.onnx")
    parser.add_argument("--calibrate", metavar="DATA", help="a saved task for int8; default: data beside the student")


def run(options: argparse.Namespace) -> Result:
    from i2i_lib.artifacts import without_suffix
    from i2i_lib.export.onnx import export_onnx

    if options.size != "dynamic" and not options.size.isdigit():
        raise ValueError(f"--size is a number of pixels or dynamic, got {options.size!r}")
    done = export_onnx(
        without_suffix(options.student),
        options.out,
        precision=options.precision,
        size=None if options.size == "dynamic" else int(options.size),
        calibrate=options.calibrate,
    )
    record = {"path": str(done.path), "precision": done.precision, "bytes": done.size}
    record |= {"largest_difference": done.largest, "psnr_db": done.psnr}
    text = (
        f"{done.path}: {done.precision}, {done.size / 1e3:,.0f} kB; against PyTorch: largest difference"
        f" {done.largest:.2g}, PSNR {done.psnr:.1f} dB"
    )
    return Result(record, text)
