"""What a page on budgets asks for, run in the browser: the library's own search, counts and configurations."""

import json
import sys
from dataclasses import asdict
from io import StringIO
from time import perf_counter
from traceback import format_exception_only
from typing import Any

from i2i_lib.config import GeneratorConfig
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.threshold import plan_channels

TEACHERS: dict[str, dict[str, Any]] = {}


def open_teachers(text: str) -> None:
    """Take the teachers of `teachers.json`: name -> config, scales, and what their chapter asks with."""
    for name, teacher in json.loads(text).items():
        TEACHERS[name] = teacher | {"config": GeneratorConfig(**teacher["config"])}


def found(name: str, budget: float) -> str:
    """The widest student within a budget in exact MACs, as JSON; `error` says why there is none."""
    teacher, counted = TEACHERS[name], []
    size = teacher["image_size"]

    def cost(config: GeneratorConfig) -> int:
        counted.append(generator_macs(config, size, "exact"))
        return counted[-1]

    started = perf_counter()
    try:
        plan = plan_channels(
            teacher["config"],
            teacher["scales"],
            budget,
            image_size=size,
            min_width=teacher["min_width"],
            cost=cost,
        )
    except ValueError as error:
        return json.dumps({"error": str(error)})
    seconds = perf_counter() - started
    return json.dumps(
        {
            "threshold": plan.threshold,
            "macs": plan.cost,
            "keep": plan.keep,
            "config": asdict(plan.config),
            "whole": asdict(teacher["config"]),
            "parameters": generator_params(plan.config),
            "share": plan.cost / generator_macs(teacher["config"], size, "exact"),
            "counted": len(counted),
            "milliseconds": 1000 * seconds,
        }
    )


def namespace(name: str, budget: float) -> dict[str, Any]:
    """The names that a cell can use."""
    teacher = TEACHERS[name]
    given = {key: teacher[key] for key in ("config", "scales", "image_size", "min_width")}
    library = {"plan_channels": plan_channels, "generator_macs": generator_macs, "generator_params": generator_params}
    return library | given | {"budget": budget}


def start_output() -> None:
    """Keep what a cell prints."""
    sys.stdout = StringIO()


def end_output(error: BaseException | None = None) -> str:
    """What a cell printed, and the last line of its error."""
    printed = sys.stdout.getvalue() if isinstance(sys.stdout, StringIO) else ""
    sys.stdout = sys.__stdout__
    return printed + ("".join(format_exception_only(error)) if error else "")
