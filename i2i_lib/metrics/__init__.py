"""Measures of generated pictures, how sure they are, and what a translation must beat."""

from i2i_lib.facade import lazy

EXPORTS = {
    "FeatureStats": "sets",
    "frechet_distance": "sets",
    "kernel_distance": "sets",
    "mean_iou": "labels",
}
__getattr__ = lazy(__name__, EXPORTS)
