"""Compress a generator: a small student, its report and an ONNX file.

TEACHER is a generator that this library saved, an inception generator of the CAT code, or a ResNet generator of
pytorch-CycleGAN-and-pix2pix, such as latest_net_G.pth (instance or batch norm, any number of blocks). U-Nets, StyleGANs
and others are not supported.

PICTURES is a folder of pictures such as the teacher translates; its answers are not needed. If the folder holds pairs
(trainA and trainB with the same names and --layout paired, or train with each pair side by side), the student learns
from them, too. A tenth is held out to measure it, or what lies in testA and testB, or test.

OUT is a new folder. It gets:
  report.html       pictures, intervals and cost, in one file
  student.onnx      checked against PyTorch
  student.*         the student for `i2i translate` and Python, and MODEL_CARD.md

An inception teacher loses the channels of its smallest norm scales, and its student starts from the weights that
stay. A ResNet's student is an inception generator of the same depth, uniformly narrow, that starts from nothing.

Milliseconds are those of the ONNX file on one thread of this machine's CPU, by the thread's own clock, which stands
still while other programs have the core. Minutes are those of the training, by the clock on the wall. The same command
goes on after an interruption.
"""

import argparse
from pathlib import Path

from i2i_lib.cli.result import Result

EXTRAS = "export,eval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", metavar="TEACHER", help="the file of a trained generator")
    parser.add_argument("pictures", metavar="PICTURES", help="a folder of pictures")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder for the student")
    budget = parser.add_argument_group("budget, one of")
    budget.add_argument("--share", type=float, help="of the teacher's multiply-accumulates (MACs), such as 0.1")
    budget.add_argument("--macs", type=float, help="MACs of one picture, such as 5e9")
    budget.add_argument("--ms", type=float, help="milliseconds of one picture by the ONNX file, such as 20; see below")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--minutes", type=float, default=20.0, help="how long to train, at least 100 steps; default: %(default)g"
    )
    training.add_argument("--steps", type=int, help="how many steps, in place of minutes")
    training.add_argument("--size", type=int, help="side of the pictures in pixels; default: as they are, 256 at most")
    training.add_argument("--seed", type=int, default=0, help="of all random numbers; default: %(default)s")
    training.add_argument(
        "--min-width",
        type=int,
        help="channels left in a layer; default: a quarter of the first's, or 8 if that is less and the budget allows",
    )
    folder = parser.add_argument_group("folder")
    folder.add_argument(
        "--layout", choices=["auto", "unpaired", "paired", "side-by-side"], default="auto", help="see below"
    )
    folder.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="which domain the teacher reads")


def run(options: argparse.Namespace) -> Result:
    from i2i_lib.compress.budget import one_budget
    from i2i_lib.compress.report import summary
    from i2i_lib.compress.run import Request, compress

    request = Request(
        options.teacher,
        options.pictures,
        one_budget(options.share, options.macs, options.ms),
        size=options.size,
        layout=options.layout,
        swap=options.direction == "BtoA",
        minutes=options.minutes,
        steps=options.steps,
        min_width=options.min_width,
        seed=options.seed,
    )
    record = compress(request, options.out.expanduser())
    files = "\n".join(f"{options.out / name}" for name in ("report.html", "student.onnx", "MODEL_CARD.md"))
    return Result(record, f"{summary(record)}\n{files}")
