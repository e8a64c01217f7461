"""Presets: their files, and what they set for tasks, students and notebooks."""

import re
from pathlib import Path
from typing import Any

import yaml

from i2i_book.arms import students
from i2i_book.chapters import made_by
from i2i_lib.files import root, shorten_path

# The family of generators that each task trains. The data of the first six comes with the dependencies, so that they
# run anywhere; that of the others is downloaded, or the user's own.
FAMILIES = {
    "fluent": "pix2pix",
    "fluent-outline": "pix2pix",
    "earth": "pix2pix",
    "openmoji": "pix2pix",
    "earth-unpaired": "cyclegan",
    "earth-labels": "gaugan",
    "horse2zebra": "cyclegan",
    "zebra2horse": "cyclegan",
    "maps": "pix2pix",
    "cityscapes": "pix2pix",
    "folder": "pix2pix",
}
MAIN_TASK = "fluent"  # which fills the main pages of the book
EMBEDDED_TASKS = ("fluent", "earth", "openmoji", "earth-unpaired", "earth-labels")
# Those of pictures in pairs (the user's own may be).
PAIRED_TASKS = tuple(task for task, family in FAMILIES.items() if family == "pix2pix")
# What a preset may hold, beside sections `+<task>` with lists of their own, and what each entry must be.
NUMBERS = {"threads": int, "gpu": int, "minutes": (int, float)}
LISTS = ("arms", "ablations", "generators", "recorded")
PRESET_ENTRIES = (*NUMBERS, *LISTS, "like", "notebooks")


def load_preset(preset: str) -> dict[str, Any]:
    """The preset `presets/<preset>.yml`, or the file itself if a path to one is given.

    One with `like: cpu` has the parameters of that preset's notebooks, except for those that it sets itself. Raises
    ValueError naming the entry that is unknown or of another kind. The parameters in a notebook's section are the
    runner's to check: only their notebook declares their types.
    """
    content = _read(preset)
    if "like" in content:
        model = content.pop("like")
        likened = _read(model)
        if "like" in likened:
            raise ValueError(f"the preset {preset} is like {model}, which has a `like` of its own")
        content["notebooks"] = _over(likened.get("notebooks") or {}, content.get("notebooks") or {})
    return content


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The sections `base` with the entries of `own` in their place; an empty section takes none away."""
    merged = dict(base)
    for name, value in own.items():
        both = isinstance(value, dict | None) and isinstance(base.get(name), dict)
        merged[name] = _over(base[name], value or {}) if both else value
    return merged


def _read(preset: str) -> dict[str, Any]:
    path = Path(preset) if preset.endswith(".yml") else root() / "presets" / f"{preset}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (root() / "presets").glob("*.yml")))
        raise ValueError(f"unknown preset {preset!r}: expected one of {known}, or the path of a .yml file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{shorten_path(path)} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{shorten_path(path)} holds {content!r:.40}: expected entries such as `threads: 1`")
    try:
        _check_entries(content)
    except ValueError as error:
        raise ValueError(f"{shorten_path(path)}: {error}") from None
    return content


def _check_entries(content: dict[str, Any]) -> None:
    unknown = [key for key in content if key not in PRESET_ENTRIES and not str(key).startswith("+")]
    if unknown:
        raise ValueError(f"unknown entries {unknown}; known are {sorted(PRESET_ENTRIES)}")
    for name, value in content.items():
        if name in NUMBERS:
            kind = NUMBERS[name]
            _expect(isinstance(value, kind), name, value, "a whole number" if kind is int else "a number")
        elif name in LISTS:
            _expect(_is_list_of_names(value), name, value, "a list of names")
        elif name == "like":
            _expect(isinstance(value, str), name, value, "the name of a preset")
        elif name == "notebooks":
            for notebook, parameters in _section("notebooks", value).items():
                for key, part in _section(f"notebooks, {notebook}", parameters).items():
                    if key.startswith("+"):
                        _section(f"notebooks, {notebook}, {key}", part)
        else:
            for inner, part in _section(name, value).items():
                _expect(_is_list_of_names(part), f"{name}, {inner}", part, "a list of names")


def _section(name: str, value: Any) -> dict[str, Any]:
    """A section's entries, none if it is empty."""
    if value is None:
        return {}
    named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    _expect(named, name, value, "a section of named entries")
    return value


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _expect(right: bool, name: str, value: Any, expected: str) -> None:
    if not right:
        raise ValueError(f"{name} is {value!r:.40}, expected {expected}")


def preset_parameters(preset: dict[str, Any], notebook: str, task: str, variant: str | None = None) -> dict[str, Any]:
    """A notebook's parameters by a preset: its own section, then that of `<task>` and that of `<variant>`; later wins.

    A section holds parameters; the sections of a task or a variant are marked by a leading `+`, as in `+openmoji`.
    Where the variant is a student, what sets it apart comes before the preset's section for it.
    """
    section = (preset.get("notebooks") or {}).get(notebook) or {}
    values = {name: value for name, value in section.items() if not name.startswith("+")}
    values |= section.get(f"+{task}") or {}
    if variant and notebook == made_by("student"):
        known = students()
        if variant not in known:
            raise ValueError(f"unknown student {variant!r}: notebooks/arms.yml has {', '.join(known)}")
        values |= known[variant]
    return values | (section.get(f"+{variant}") or {})


def ablations(preset: dict[str, Any], task: str) -> list[str]:
    """The students that only `make ablations` trains: those of `arms` that are no arms of the preset.

    A preset's own list, `ablations`, may name fewer, and its section `+<task>` fewer still.
    None for tasks without paired pictures: the ablations compare the distance of each picture to its target.
    """
    if task not in PAIRED_TASKS:
        return []
    asked = (preset.get(f"+{task}") or {}).get("ablations", preset.get("ablations", students()))
    own = variants(preset, task)[0]
    return [name for name in asked if name not in own]


def variants(preset: dict[str, Any], task: str) -> tuple[list[str], list[str]]:
    """The students (arms) and the generators that a preset trains for a task: its section `+<task>` wins."""
    own = preset.get(f"+{task}") or {}
    return own.get("arms", preset["arms"]), own.get("generators", preset["generators"])


def recorded_students(preset: dict[str, Any], task: str) -> list[str]:
    """The students that `make teacher` trains beside the teacher of a task.

    Those that are arms of the preset are taken from the record where its first seed is run; others are for the demo.
    """
    return (preset.get(f"+{task}") or {}).get("recorded", preset.get("recorded", []))


def tasks(name: str) -> tuple[str, ...]:
    """The tasks that `TASK=name` stands for: one, or every embedded one for `all`."""
    if name == "all":
        return EMBEDDED_TASKS
    if name not in FAMILIES:
        raise ValueError(f"unknown task {name!r}: expected all or one of {', '.join(FAMILIES)}")
    return (name,)


def seeds(asked: str) -> range:
    """The seeds that `SEEDS=asked` stands for: 3 for so many from 0 on, or 9-24 for the first and the last."""
    found = re.fullmatch(r"(?:(?P<first>[0-9]{1,6})-)?(?P<last>[0-9]{1,6})", asked)
    if found and found["first"]:
        chosen = range(int(found["first"]), int(found["last"]) + 1)
    else:
        chosen = range(int(found["last"]) if found else 0)
    if not chosen:
        expected = "a whole number of at least 1, or the first and the last seed as in 9-24"
        raise ValueError(f"SEEDS must be {expected}, got {asked!r}")
    return chosen


def family(preset: dict[str, Any], task: str) -> str:
    """The family of generators that a preset trains for a task; the section of chapter 1 may name another."""
    return preset_parameters(preset, made_by("data"), task).get("family") or FAMILIES[task]
