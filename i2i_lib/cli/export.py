"""Export a student: one file for another runtime, or a page on which it runs in a browser.

  i2i export STUDENT                     ONNX: browsers, phones, servers; for pictures of any size
  i2i export STUDENT --precision int8    the same, smaller; whether it is faster depends on the processor
  i2i export STUDENT --demo FOLDER       a page to draw on, with the student and its teacher, for any web server

An ONNX file takes `source`, float32 [N, C, H, W] in [-1, 1], and returns `image` of the same size. It appears only
after ONNX Runtime has made PyTorch's pictures with it.

A page needs ONNX Runtime Web (`npm install onnxruntime-web`), the pictures that a compression saves beside its student,
and, to compare with, its teacher. Serve the folder: python -m http.server --directory FOLDER 8000
"""

import argparse
from pathlib import Path

from i2i_lib.cli.result import Result

EXTRAS = "export"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("student", metavar="STUDENT", help="a saved student, such as student/student")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="of an ONNX file; default: fp32")
    parser.add_argument("--size", default="dynamic", help="side of the pictures in pixels; default: any size")
    parser.add_argument("--out", help="the file to write; default: STUDENT-PRECISION.onnx")
    parser.add_argument("--calibrate", metavar="DATA", help="a saved task for int8; default: data beside the student")
    page = parser.add_argument_group("page")
    page.add_argument("--demo", metavar="FOLDER", type=Path, help="write a page into this folder, and no file")
    page.add_argument("--teacher", metavar="TEACHER", help="a saved generator; default: teacher beside the student")
    page.add_argument("--data", metavar="DATA", help="a saved task; default: data beside the student")
    page.add_argument("--runtime", metavar="FOLDER", type=Path, help="of the npm package; default: node_modules here")


def run(options: argparse.Namespace) -> Result:
    from i2i_lib.artifacts import without_suffix

    given = {name: value for name, value in vars(options).items() if value is not None}
    page, file = {"teacher", "data", "runtime"} & given.keys(), {"precision", "out", "calibrate"} & given.keys()
    if options.demo and file:
        raise ValueError(f"--{min(file)} is for a file, and --demo writes a page: leave one of them out")
    if page and not options.demo:
        raise ValueError(f"--{min(page)} is for a page: name its folder by --demo")
    if options.demo:
        return _page(options)
    from i2i_lib.export.onnx import export_onnx

    if options.size != "dynamic" and not options.size.isdigit():
        raise ValueError(f"--size is a number of pixels or dynamic, got {options.size!r}")
    done = export_onnx(
        without_suffix(options.student),
        options.out,
        precision=options.precision or "fp32",
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


def _page(options: argparse.Namespace) -> Result:
    from i2i_lib.artifacts import without_suffix
    from i2i_lib.demo.page import write_site

    teacher, data = (Path(without_suffix(path)) if path else None for path in (options.teacher, options.data))
    folder = options.demo.expanduser()
    student = Path(without_suffix(options.student)).expanduser()
    about = write_site(student, folder, teacher=teacher, data=data, runtime=options.runtime)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    record = {"folder": str(folder), "bytes": size, "networks": about["networks"]}
    text = f"{folder}: {size / 1e6:,.1f} MB. See it by: python -m http.server --directory {folder} 8000"
    return Result(record, text + "\nand open http://localhost:8000")
