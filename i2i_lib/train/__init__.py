"""Training: the loop, and a trainer and a distiller for each family."""

from i2i_lib.facade import lazy

EXPORTS = {
    "TrainConfig": "adversarial",
    "TrainingRun": "loop",
    "fit": "loop",
    "set_up": "device",
    "Recipe": "recipe",
    "build": "recipe",
    "PairedTrainer": "pix2pix",
    "PairedDistiller": "pix2pix",
    "UnpairedTrainer": "cyclegan",
    "UnpairedDistiller": "cyclegan",
    "SpadeTrainer": "gaugan",
    "SpadeDistiller": "gaugan",
}
__getattr__ = lazy(__name__, EXPORTS)
