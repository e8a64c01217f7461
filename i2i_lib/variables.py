"""Variables of the environment. One that is set and empty counts as unset: shells and job files write it so."""

import os
from pathlib import Path


def variable(name: str) -> str | None:
    """Value of an environment variable; None where it is unset or blank."""
    return os.environ.get(name, "").strip() or None


def variable_path(name: str) -> Path | None:
    """Path that an environment variable names, `~` expanded; None where it is unset or blank."""
    value = variable(name)
    return Path(value).expanduser() if value else None
