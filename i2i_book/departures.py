"""Where the published protocol and the authors' code could differ, as `notebooks/departures.yml` lists them."""

from dataclasses import dataclass, fields, is_dataclass
from pkgutil import resolve_name
from typing import Any

import pandas as pd
import yaml

from i2i_book.presets import load_preset
from i2i_book.runner.notebook import chapter_parameters
from i2i_lib.files import root


@dataclass(frozen=True, slots=True)
class Departure:
    """One row of the table."""

    what: str
    authors: str
    here: str
    held: list[dict[str, Any]]  # what must be so for `here` to be true; see the file
    why: str = ""  # of a row that differs

    @property
    def differs(self) -> bool:
        """Whether this book does not do what the authors' code does."""
        return bool(self.why)


def departures() -> list[Departure]:
    """Every row of `notebooks/departures.yml`, those that agree first."""
    listed = yaml.safe_load((root() / "notebooks" / "departures.yml").read_text())
    return [Departure(**row) for row in listed["same"] + listed["differs"]]


def found(held: dict[str, Any]) -> dict[str, Any]:
    """The values that a preset or the library has for the names in `held["values"]`; empty for a test.

    Raises KeyError for a name that does not exist.
    """
    if "test" in held:
        return {}
    if "default" in held:
        return {name: _default(resolve_name(held["default"]), name) for name in held["values"]}
    values = chapter_parameters(load_preset(held["preset"]), held["chapter"], held["task"], held.get("arm"))
    return {name: values[name] for name in held["values"]}


def table(rows: list[Departure]) -> pd.DataFrame:
    """The rows for the page, with the values that presets and library have now, not those that the file says."""
    lines = []
    for row in rows:
        line = {"part": row.what, "authors' code": row.authors, "here": row.here}
        line |= {"why": row.why} if row.differs else {}
        lines.append(
            line | {"as set": "; ".join(dict.fromkeys(_as_set(held) for held in row.held if "values" in held))}
        )
    return pd.DataFrame(lines)


def _as_set(held: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value}" for name, value in found(held).items())
    if "default" in held:
        return f"by default {values}"
    return f"{held['task']}{', GauGAN' if held['preset'] == 'paper-gaugan' else ''}: {values}"


def _default(owner: Any, name: str) -> Any:
    if is_dataclass(owner):
        return {field.name: field.default for field in fields(owner)}[name]
    return vars(owner)[name]
