"""What a preset, a task and a list of arms ask of a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from i2i_book.runs import MADE_BY
from i2i_lib.files import root, shorten_path

# The tasks whose data comes with the dependencies, so that they run anywhere.
EMBEDDED_TASKS = ("earth", "openmoji", "earth-unpaired", "earth-labels")
# Those whose data is downloaded, or the user's own.
OTHER_TASKS = ("horse2zebra", "zebra2horse", "maps", "cityscapes", "folder")
# Those of pictures in pairs (the user's own may be).
PAIRED_TASKS = ("earth", "openmoji", "maps", "cityscapes", "folder")
# What a preset may hold, beside sections `+<task>` with arms and generators of their own.
PRESET_ENTRIES: dict[str, Any] = {
    "threads": int, "gpu": int, "minutes": (int, float), "arms": list, "ablations": list, "generators": list,
    "notebooks": dict,
}  # fmt: skip


def load_preset(preset: str) -> dict[str, Any]:
    """The preset `presets/<preset>.yml`, or the file itself if a path to one is given."""
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
    if unknown := [key for key in content if not (key in PRESET_ENTRIES or str(key).startswith("+"))]:
        raise ValueError(f"{shorten_path(path)}: unknown entries {unknown}; known are {sorted(PRESET_ENTRIES)}")
    for name, value, kind in _entries(content):
        texts = value if isinstance(value, dict | list) else ()
        if not isinstance(value, kind) or not all(isinstance(text, str) for text in texts):
            wanted = {int: "a whole number", list: "a list of names", dict: "a section of named entries"}
            raise ValueError(f"{shorten_path(path)}: {name} is {value!r:.40}, expected {wanted.get(kind, 'a number')}")
    return content


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The entries of a preset and what each must be, an outer one before those inside it. Empty sections are left out.

    The parameters in a notebook's section are the runner's to check: only their notebook knows their types.
    """
    for key, value in content.items():
        kind = PRESET_ENTRIES.get(key, dict)
        if value is not None or kind is not dict:
            yield key, value, kind
        for inner, part in (value or {}).items() if kind is dict else ():
            if part is not None or key != "notebooks":
                yield f"{key}, {inner}", part, dict if key == "notebooks" else PRESET_ENTRIES.get(inner, list)
            for name, more in (part or {}).items() if key == "notebooks" else ():
                if name.startswith("+") and more is not None:
                    yield f"{key}, {inner}, {name}", more, dict


def preset_parameters(preset: dict[str, Any], notebook: str, task: str, variant: str | None = None) -> dict[str, Any]:
    """What a preset sets for a notebook: its own section, then that of `<task>`, then that of `<variant>`, later wins.

    A section holds parameters; the sections of a task or a variant are marked by a leading `+`, as in `+openmoji`.
    Where the variant is a student, what sets it apart comes before the preset's section for it.
    """
    section = (preset.get("notebooks") or {}).get(notebook) or {}
    values = {name: value for name, value in section.items() if not name.startswith("+")}
    values |= section.get(f"+{task}") or {}
    if notebook == MADE_BY["student"] and variant:
        if variant not in (known := students()):
            raise ValueError(f"unknown student {variant!r}: notebooks/arms.yml has {', '.join(known)}")
        values |= known[variant]
    return values | (section.get(f"+{variant}") or {})


def arms() -> dict[str, dict[str, dict[str, Any]]]:
    """The students of `notebooks/arms.yml`: question -> name -> the parameters that set it apart from `gcka`."""
    return yaml.safe_load((root() / "notebooks" / "arms.yml").read_text())


def students() -> dict[str, dict[str, Any]]:
    """Every student of `arms` by its name, and `gcka`, which nothing sets apart."""
    return {"gcka": {}} | {name: own for found in arms().values() for name, own in found.items()}


def ablations(preset: dict[str, Any], task: str) -> list[str]:
    """The students that only `make ablations` trains: those of `arms` that are no arms of the preset.

    A preset's own list, `ablations`, may name fewer, and its section `+<task>` fewer still.
    None for tasks without paired pictures: what the ablations compare is the distance of each picture to its truth.
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


def tasks(name: str) -> tuple[str, ...]:
    """The tasks that `TASK=name` stands for: one, or every embedded one for `all`."""
    if name == "all":
        return EMBEDDED_TASKS
    known = EMBEDDED_TASKS + OTHER_TASKS
    if name not in known:
        raise ValueError(f"unknown task {name!r}: expected all or one of {', '.join(known)}")
    return (name,)


def check_student(arm: str, given: dict[str, Any], run: str, task: str) -> None:
    """Refuse parameters that are not those of the student called `arm`, of `notebooks/arms.yml`.

    All that sets it apart must be as there, or as the preset called `run` has it for this student. Raises ValueError.
    """
    wanted = students().get(arm, {})
    if (root() / "presets" / f"{run}.yml").is_file() and arm in students():
        own = preset_parameters(load_preset(run), MADE_BY["student"], task, arm)
        wanted = {name: own[name] for name in wanted}
    if wrong := {name: given[name] for name, value in wanted.items() if given[name] != value}:
        raise ValueError(f"the student {arm!r} has {wanted}, got {wrong}: set that, or give another name to yours")
