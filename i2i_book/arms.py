"""The students that the book trains, as `notebooks/arms.yml` lists them."""

from typing import Any

import yaml

from i2i_lib.files import root


def arms() -> dict[str, dict[str, dict[str, Any]]]:
    """The students of `notebooks/arms.yml`: question -> name -> the parameters that set it apart from `gcka`."""
    return yaml.safe_load((root() / "notebooks" / "arms.yml").read_text())


def students() -> dict[str, dict[str, Any]]:
    """Every student of `arms` by its name, and `gcka`, which nothing sets apart."""
    found: dict[str, dict[str, Any]] = {"gcka": {}}
    for of_question in arms().values():
        found |= of_question
    return found


def check_student(arm: str, given: dict[str, Any]) -> None:
    """Refuse parameters that are not those of the student called `arm`: all that sets it apart must be as listed.

    A name that is not listed stands for any parameters. Raises ValueError.
    """
    wanted = students().get(arm, {})
    if wrong := {name: given[name] for name, value in wanted.items() if given[name] != value}:
        raise ValueError(f"the student {arm!r} has {wanted}, got {wrong}: set that, or give another name to yours")
