"""What a subcommand returns."""

from typing import Any, NamedTuple


class Result(NamedTuple):
    """The outcome of a subcommand: `record` is printed with --json, `text` without it."""

    record: dict[str, Any]  # plain JSON
    text: str
    status: int = 0  # of the process
