"""Train by a recipe, from its last checkpoint if there is one.

RECIPE is the config.json of a training's folder (see `i2i_lib.train.recipe.Recipe`). On several GPUs:

  accelerate launch -m i2i_lib.cli train RECIPE
"""

import argparse
from pathlib import Path

from i2i_lib.cli.result import Result

EXTRAS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="the config.json in a training's folder")


def run(options: argparse.Namespace) -> Result:
    from i2i_lib.train.recipe import launch

    if not options.recipe.is_file():
        what = "is a folder" if options.recipe.is_dir() else "does not exist"
        raise FileNotFoundError(f"{options.recipe} {what}: name the config.json in a training's folder")
    result = launch(options.recipe)
    return Result({"generator": str(result)}, str(result))
