"""Fluent Emoji: flat drawings, black drawings and 3-D pictures of the same things."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor

from i2i_lib.data.emoji import RENDERER, Pairs, contents_sha256, divide, emoji_task, originals, render_svg
from i2i_lib.data.pictures import THREADS, to_tensor
from i2i_lib.data.tiles import Task
from i2i_lib.files import data_folder, root, shorten_path, write_json

NODE_MODULES = root() / "node_modules"
CACHE = data_folder() / "fluent"
CREDIT = "Fluent Emoji, designed by Microsoft. License: MIT"
TEST_SHARE = 0.2  # of the groups
RULE_SIZE = 64  # pixels; wrong pairs are found at this size, whatever the size of the task
NEARER = 0.95  # of the L1 to its own 3-D picture: a drawing nearer than that to another variant's has a wrong one
OUTLINE_IOU = 0.85  # what the two outlines of a pair have in common, at least
# People whose gender has a code point of its own, by the one that stands for them all.
_SAME = originals(
    {
        "1f9d1": "1f468 1f469",  # person: man, woman
        "1f9d2": "1f466 1f467",  # child: boy, girl
        "1f9d3": "1f474 1f475",  # older person
        "1f934": "1f478 1fac5",  # prince: princess, person with crown
        "1f930": "1fac3 1fac4",  # pregnant
        "1f385": "1f936",  # Santa Claus: Mrs. Claus
        "1f46b": "1f46c 1f46d",  # holding hands
        "1f483": "1f57a",  # dancing
    }
)


@dataclass(frozen=True, slots=True)
class Package:
    """An npm package: which of its files are read, and the SHA-256 over their names and contents."""

    name: str
    version: str
    pattern: str
    sha256: str

    def files(self) -> list[Path]:
        """The files that are read, sorted by name.

        Raises FileNotFoundError if the package is not installed, ValueError if its files are not the recorded ones.
        """
        files = sorted((NODE_MODULES / self.name).glob(self.pattern))
        if not files:
            raise FileNotFoundError(
                f"the package {self.name} {self.version} is not in {shorten_path(NODE_MODULES)}: run "
                "`.venv/bin/npm ci` in the checkout, which needs the network"
            )
        checksum = contents_sha256((file.name, file.read_bytes()) for file in files)
        if checksum != self.sha256:
            raise ValueError(
                f"the {len(files)} files of the package {self.name} have checksum {checksum}, not the "
                f"recorded {self.sha256} of version {self.version}: they are damaged or from another release; run "
                "`.venv/bin/npm ci` in the checkout, which puts the recorded version there"
            )
        return files


SOLID = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "assets/*.webp",
    "4803a1e410f5b6c6d419b92026df816432ea5b4ebb18d7e2a8852ae8c456a11c",
)
FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "*.json",
    "a96c5c2ae53bf69150b32e87a6cc8c8ef6c97412e28bd954c7b464b219e10410",
)
BLACK = Package(
    "@iconify-json/fluent-emoji-high-contrast",
    "1.2.6",
    "*.json",
    "e205229193f0ac6f58e92851ca1821193926a3f13c8137b3a2c3931aeb1d1e00",
)


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji in its styles."""

    code: str  # its code points without the variation selector, as in "1f469-1f3fd-200d-1f680"
    name: str  # as in "woman astronaut medium"
    flat: str  # SVG
    black: str | None  # SVG; of emoji without a skin tone only
    solid: Path  # WebP with an alpha channel, 256 px wide


def all_emoji() -> list[Emoji]:
    """Every emoji that has a flat drawing and a 3-D picture, sorted by code."""
    names, flat = _drawings(FLAT)
    _, black = _drawings(BLACK)
    # Of the two emoji that have a file under either name, the one without the selector comes last and is taken.
    files = sorted(SOLID.files(), key=lambda file: "-fe0f" not in file.stem)
    solid = {_code(file.stem): file for file in files}
    both = sorted(flat.keys() & solid.keys())
    return [Emoji(code, names[code], flat[code], black.get(code), solid[code]) for code in both]


def _drawings(package: Package) -> tuple[dict[str, str], dict[str, str]]:
    """Names and SVG texts by code."""
    files = {file.name: file for file in package.files()}
    icons = json.loads(files["icons.json"].read_text())["icons"]
    chars = json.loads(files["chars.json"].read_text())
    names = {_code(code): name.replace("-", " ") for code, name in chars.items()}
    return names, {_code(code): _svg(icons[name]) for code, name in chars.items()}


def _code(code: str) -> str:
    """The code points without the variation selector, which one package writes and the other leaves out."""
    return code.replace("-fe0f", "")


def _svg(icon: dict[str, Any]) -> str:
    top = (icon.get("height", 32) - 32) / 2  # of the few drawings that are higher than wide, the middle square
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top} 32 32" color="black">{icon["body"]}</svg>'


def group_key(code: str) -> str:
    """Key of an emoji, shared by all skin tones and genders ("1f469-1f3fd-200d-1f680": "1f9d1-200d-1f680")."""
    plain = re.sub("-1f3f[b-f]|-200d-264[02]", "", code)
    return "-".join(_SAME.get(point, point) for point in plain.split("-"))


def left_out(emoji: Sequence[Emoji]) -> dict[str, str]:
    """The codes of the wrong pairs, each with the rule that leaves it out.

    "other variant": the flat drawing is nearer to the 3-D picture of another variant (see `nearer_to_another`).
    "other outline": of the rest, those whose outlines, where at least half of a pixel is covered, share less than
    `OUTLINE_IOU` of their union.

    Both are decided on pictures of `RULE_SIZE` pixels. The answer takes seconds and is kept under `data/fluent/`.
    """
    groups = [group_key(one.code) for one in emoji]
    made_of = [SOLID.sha256, FLAT.sha256, RENDERER, PIL.__version__, RULE_SIZE, NEARER, OUTLINE_IOU]
    made_of += [[one.code, group] for one, group in zip(emoji, groups, strict=True)]
    record = CACHE / f"left-out-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}.json"
    try:
        return json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        pass  # not known yet, or damaged
    flat = _each(lambda one: render_svg(one.flat, RULE_SIZE, "RGBA", background=None), emoji)
    solid = _each(lambda one: read_solid(one.solid, RULE_SIZE), emoji)
    other_variant = nearer_to_another(on_white(flat), on_white(solid), groups)
    other_outline = outline_iou(flat[:, 3] > 127, solid[:, 3] > 127) < OUTLINE_IOU
    wrong = {}
    for one, variant, outline in zip(emoji, other_variant.tolist(), other_outline.tolist(), strict=True):
        if variant:
            wrong[one.code] = "other variant"
        elif outline:
            wrong[one.code] = "other outline"
    write_json(record, wrong)
    return wrong


def nearer_to_another(flat: Tensor, solid: Tensor, groups: Sequence[str]) -> Tensor:
    """Which drawings are nearer to another 3-D picture of their group than to their own, bool [N].

    `flat` and `solid` are uint8 [N, 3, S, S]. Nearer: an L1 below `NEARER` times that to the own picture.
    """
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    wrong = torch.zeros(len(groups), dtype=torch.bool)
    for indices in members.values():
        variants = solid[indices].int()
        for place, index in enumerate(indices):
            distances = (flat[index].int() - variants).abs().sum((1, 2, 3))
            wrong[index] = distances.min() < NEARER * distances[place]
    return wrong


def outline_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection of outlines over their union, float [N]; the outlines are bool [N, S, S]."""
    return (one & other).sum((1, 2)) / (one | other).sum((1, 2))


def read_solid(path: Path, size: int) -> Tensor:
    """Read a 3-D picture as uint8 [4, size, size], its alpha channel last; of one that is not square, the middle.

    Raises ValueError if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return to_tensor(ImageOps.fit(image.convert("RGBA"), (size, size), Image.Resampling.LANCZOS))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}): run `.venv/bin/npm ci` in the checkout; if that does not help, "
            "reinstall Pillow, whose official wheels read WebP"
        ) from error


def on_white(pictures: Tensor) -> Tensor:
    """Return what pictures with an alpha channel, uint8 [..., 4, H, W], look like on white, uint8 [..., 3, H, W]."""
    colour, alpha = pictures[..., :3, :, :].float(), pictures[..., 3:, :, :].float() / 255
    return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)


def _each(make: Callable[[Emoji], Tensor], emoji: Sequence[Emoji]) -> Tensor:
    with ThreadPoolExecutor(THREADS) as pool:
        return torch.stack(list(pool.map(make, emoji)))


def load_fluent(image_size: int, validation: float = 0.0) -> Task:
    """Flat drawing to 3-D picture, split by drawing: all variants of one are in the same part.

    Both are square, `image_size` pixels wide, on white. Wrong pairs are left out (see `left_out`). `validation` is the
    share of the groups outside the test. `Tiles.block` numbers the groups of a held-out part; `info["test"]` lists the
    emoji of the test in the order of the tiles.
    """
    return _task("fluent", "flat drawing", lambda one: one.flat, image_size, validation)


def load_fluent_outline(image_size: int, validation: float = 0.0) -> Task:
    """Black drawing to 3-D picture: `load_fluent` without skin tones, since no emoji with one is drawn in black."""
    return _task("fluent-outline", "black drawing", lambda one: one.black, image_size, validation)


def _task(name: str, domain: str, drawing: Callable[[Emoji], str | None], image_size: int, validation: float) -> Task:
    emoji = all_emoji()
    wrong = left_out(emoji)
    drawn = [one for one in emoji if drawing(one)]
    kept = [one for one in drawn if one.code not in wrong]
    groups = [group_key(one.code) for one in kept]
    parts = divide(groups, TEST_SHARE, validation)

    def pairs(places: list[int]) -> Pairs:
        emoji = [kept[i] for i in places]
        source = _each(lambda one: render_svg(drawing(one) or "", image_size), emoji)
        target = _each(lambda one: on_white(read_solid(one.solid, image_size)), emoji)
        return Pairs(source, target, [groups[i] for i in places])

    info = {
        "domains": [domain, "3-D picture"],
        "credit": CREDIT,
        "sources": {f"{package.name} {package.version}": package.sha256 for package in (FLAT, BLACK, SOLID)},
        "left_out": Counter(wrong[one.code] for one in drawn if one.code in wrong),
        "groups": len(set(groups)),
        "test": [{"code": kept[i].code, "name": kept[i].name, "group": groups[i]} for i in parts["test"]],
    }
    held = pairs(parts["validation"]) if parts["validation"] else None
    return emoji_task(name, pairs(parts["train"]), pairs(parts["test"]), held, info)
