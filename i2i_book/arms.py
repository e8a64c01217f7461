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
