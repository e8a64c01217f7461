"""Measures of generated pictures, their intervals, and yardsticks."""

from i2i_lib.facade import lazy

EXPORTS = {"FeatureStats": "sets", "frechet_distance": "sets", "kernel_distance": "sets", "mean_iou": "labels"}
__getattr__ = lazy(__name__, EXPORTS)
