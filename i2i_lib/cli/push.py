"""Put a student on a model hub, with its card.

The repository gets the generator, its ONNX file where one lies beside it, and a card with what was measured, on how
many pictures, and the licence. It needs a token with the right to write: the variable HF_TOKEN, or `hf auth login`. The
hub is huggingface.co, or what HF_ENDPOINT names. Whoever is to use it says:

  i2i translate hf://OWNER/NAME IN OUT
  load_generator("hf://OWNER/NAME@REVISION")
"""

import argparse
from pathlib import Path
from typing import Any

from i2i_lib.cli.result import Result

EXTRAS = "hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("student", metavar="STUDENT", help="a saved student, such as student/student")
    parser.add_argument("repository", metavar="OWNER/NAME", help="of the hub; made if need be")
    parser.add_argument("--licence", help="such as mit or cc-by-4.0: what teacher and pictures allow. Needed")
    parser.add_argument(
        "--results",
        metavar="FILE",
        type=Path,
        help="what `i2i evaluate STUDENT DATA --json` printed; default: of the compression that made it",
    )
    parser.add_argument("--private", action="store_true", help="show a new repository to yourself alone")


def run(options: argparse.Namespace) -> Result:
    from i2i_lib.artifacts import without_suffix
    from i2i_lib.checkpoint import load_info
    from i2i_lib.hub import card_text, push_generator

    if not options.licence:
        raise ValueError("a student goes out with a licence: name by --licence what its teacher and pictures allow")
    student = Path(without_suffix(options.student)).expanduser()
    weights = load_info(student)["sha256"]
    measured, pictures, body = _results(options.results, weights) if options.results else _compression(student, weights)
    body += f"\n\nLicence: {options.licence}.\n\nUse: `i2i translate hf://{options.repository} IN OUT`\n"
    card = card_text(options.repository.rpartition("/")[2], options.licence, measured, pictures, body)
    onnx = student.with_name(f"{student.name}.onnx")
    found = onnx if onnx.is_file() else None
    address = push_generator(student, options.repository, card, onnx=found, private=options.private)
    return Result({"address": address, "measured": measured, "pictures": pictures}, address)


def _compression(student: Path, weights: str) -> tuple[dict[str, Any], str, str]:
    """Measures, on which pictures, and the text of a card: of the compression that made a student."""
    from i2i_lib.compress.report import card_body, measured_means
    from i2i_lib.files import read_json

    file = student.with_name("compress.json")
    record = (read_json(file).get("record") if file.is_file() else None) or {}
    if record.get("weights") != weights:
        raise ValueError(
            f"nothing is known of how good {student} is: `i2i evaluate {student} DATA --json` measures it; name what"
            " that prints by --results"
        )
    pictures = f"{record['test_pictures']} pictures that no training saw"
    return measured_means(record), pictures, card_body(record)


def _results(file: Path, weights: str) -> tuple[dict[str, Any], str, str]:
    """The same of a file of `i2i evaluate --json`."""
    from i2i_lib.files import read_json
    from i2i_lib.results import MEASURES

    record = read_json(file)
    if not isinstance(record, dict) or record.get("weights") != weights:
        raise ValueError(f"{file} holds no measures of this student: `i2i evaluate STUDENT DATA --json` prints them")
    measured = {name: record[name] for name in MEASURES if record.get(name) is not None}
    pictures = f"{record['images']} test pictures of {record['task']}"
    rows = "\n".join(f"| {MEASURES[name].heading} | {MEASURES[name].text(value)} |" for name, value in measured.items())
    head = "# Model card: a compressed image-to-image generator\n\n"
    return measured, pictures, f"{head}Measured on {pictures}.\n\n| | |\n|---|---|\n{rows}"
