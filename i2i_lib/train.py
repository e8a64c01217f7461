"""Everything that trains, by one name: the loop and the trainers of each family.

As a command, it runs a described training: `accelerate launch -m i2i_lib.train RUN/config.json`.
"""

import sys

from i2i_lib.distill import Distillation
from i2i_lib.gaugan import SpadeDistiller, SpadeTrainer, Vgg19Features
from i2i_lib.loop import Trainer, TrainingRun, fit, set_up
from i2i_lib.paired import PairedDistiller, PairedTrainer
from i2i_lib.steps import Batches, Generator, TrainConfig
from i2i_lib.unpaired import UnpairedDistiller, UnpairedTrainer, swapped

__all__ = [
    "Batches",
    "Distillation",
    "Generator",
    "PairedDistiller",
    "PairedTrainer",
    "SpadeDistiller",
    "SpadeTrainer",
    "TrainConfig",
    "Trainer",
    "TrainingRun",
    "UnpairedDistiller",
    "UnpairedTrainer",
    "Vgg19Features",
    "fit",
    "set_up",
    "swapped",
]

if __name__ == "__main__":
    from i2i_lib.described import main

    sys.exit(main(sys.argv[1:]))
