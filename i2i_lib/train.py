"""Everything that trains, by one name: the loop and the trainers of each family."""

from i2i_lib.distill import Distillation
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
    "TrainConfig",
    "Trainer",
    "TrainingRun",
    "UnpairedDistiller",
    "UnpairedTrainer",
    "fit",
    "set_up",
    "swapped",
]
