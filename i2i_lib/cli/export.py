"""Export a student: one file for another runtime, or a page on which it runs in a browser.

  i2i export STUDENT                     ONNX: browsers, phones, servers; for pictures of any size
  i2i export STUDENT --precision int8    the same, smaller; whether it is faster depends on the processor
  i2i export STUDENT --to pt2            torch.export: PyTorch without this library, and its compilers
  i2i export STUDENT --to pte            ExecuTorch: phones, for pictures of one size (pip install 'i2i-lib[phone]')
  i2i export STUDENT --compare           all of them side by side: time, size, and what int8 loses; writes nothing
  i2i export STUDENT --demo FOLDER       a page to draw on, with the student and its teacher, for any web server

Every file takes float32 [N, C, H, W] in [-1, 1] and returns pictures of the same size. It appears only after it has
made PyTorch's pictures, to 1e-4 in fp32. Times are those of one thread, by its own clock.

A page needs ONNX Runtime Web (`npm install onnxruntime-web`), the pictures that a compression saves beside its student,
and, to compare with, its teacher. Serve the folder: python -m http.server --directory FOLDER 8000
"""

import argparse
from pathlib import Path

from i2i_lib.cli.result import Result

EXTRAS = "export"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("student", metavar="STUDENT", help="a saved student, such as student/student")
    parser.add_argument("--to", choices=["onnx", "pt2", "pte"], help="format of a file; default: onnx")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="of an ONNX file; default: fp32")
    parser.add_argument("--size", help="side of the pictures in pixels; default: any size, for pte 256")
    parser.add_argument("--out", help="the file to write; default: STUDENT-PRECISION.onnx, STUDENT.pt2, STUDENT.pte")
    parser.add_argument("--compare", action="store_true", help="a table of all formats in place of a file")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="a saved task, to calibrate int8, compare or draw on; default: data beside the student",
    )
    page = parser.add_argument_group("page")
    page.add_argument("--demo", metavar="FOLDER", type=Path, help="write a page into this folder, and no file")
    page.add_argument("--teacher", metavar="TEACHER", help="a saved generator; default: teacher beside the student")
    page.add_argument("--runtime", metavar="FOLDER", type=Path, help="of the npm package; default: node_modules here")


def run(options: argparse.Namespace) -> Result:
    from i2i_lib.artifacts import without_suffix
    from i2i_lib.hub import is_address

    given = {name for name, value in vars(options).items() if value not in (None, False)}
    page, file = given & {"teacher", "runtime"}, given & {"precision", "out", "size", "to"}
    if (options.demo or options.compare) and file:
        what = "--demo writes a page" if options.demo else "--compare writes nothing"
        raise ValueError(f"--{min(file)} is for a file, and {what}: leave one of them out")
    if page and not options.demo:
        raise ValueError(f"--{min(page)} is for a page: name its folder by --demo")
    if is_address(options.student):
        raise ValueError(
            f"{options.student} is on a hub, and what is exported lies here: in Python, `save_generator(load_generator("
            f'"{options.student}"), "student")` of i2i_lib.checkpoint brings it'
        )
    student = Path(without_suffix(options.student)).expanduser()
    data = Path(without_suffix(options.data)) if options.data else None
    if options.demo:
        return _page(student, data, options)
    return _table(student, data or student.with_name("data")) if options.compare else _file(student, data, options)


def _file(student: Path, data: Path | None, options: argparse.Namespace) -> Result:
    if options.size and options.size != "dynamic" and not options.size.isdigit():
        raise ValueError(f"--size is a number of pixels or dynamic, got {options.size!r}")
    size = int(options.size) if options.size and options.size != "dynamic" else None
    if options.to in ("pt2", "pte"):
        from i2i_lib.export.programs import SIZE, export_pt2, export_pte

        if options.precision not in (None, "fp32") or data:
            raise ValueError(f"--to {options.to} writes fp32: --precision and --data are for ONNX")
        if options.to == "pte":
            done = export_pte(student, options.out, size=size or SIZE)
        else:
            done = export_pt2(student, options.out, size=size)
    else:
        from i2i_lib.export.onnx import export_onnx

        precision = options.precision or "fp32"
        done = export_onnx(student, options.out, precision=precision, size=size, calibrate=data)
    record = {"path": str(done.path), "precision": done.precision, "bytes": done.size}
    record |= {"largest_difference": done.largest, "psnr_db": done.psnr}
    text = (
        f"{done.path}: {done.precision}, {done.size / 1e3:,.0f} kB; against PyTorch: largest difference"
        f" {done.largest:.2g}, PSNR {done.psnr:.1f} dB"
    )
    return Result(record, text)


def _table(student: Path, data: Path) -> Result:
    from i2i_lib.export.compare import about_int8, compare_formats

    rows = compare_formats(student, data)
    paired = "l1_to_target" in rows[0]
    heads = ["format", "kB", "L1 to PyTorch", *["L1 to targets"] * paired, "ms"]
    lines = [f"{heads[0]:14}" + "".join(f"{head:>15}" for head in heads[1:])]
    for row in rows:
        size = f"{row['bytes'] / 1e3:,.0f}" if row["bytes"] else ""
        cells = [size, f"{row['l1_to_pytorch']:.5f}", *[f"{row['l1_to_target']:.5f}" for _ in range(paired)]]
        lines.append(f"{row['format']:14}" + "".join(f"{cell:>15}" for cell in [*cells, f"{row['ms']:.2f}"]))
    said = about_int8(rows)
    measured = f"{rows[0]['pictures']} test pictures; times of one picture on one thread, by its own clock, medians."
    return Result({"rows": rows, "int8": said}, "\n".join([*lines, measured, said]))


def _page(student: Path, data: Path | None, options: argparse.Namespace) -> Result:
    from i2i_lib.artifacts import read_record, without_suffix
    from i2i_lib.demo.page import write_site

    read_record(student)  # that there is one
    teacher = Path(without_suffix(options.teacher)) if options.teacher else None
    folder = options.demo.expanduser()
    about = write_site(student, folder, teacher=teacher, data=data, runtime=options.runtime)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    record = {"folder": str(folder), "bytes": size, "networks": about["networks"]}
    text = f"{folder}: {size / 1e6:,.1f} MB. See it by: python -m http.server --directory {folder} 8000"
    return Result(record, text + "\nand open http://localhost:8000")
