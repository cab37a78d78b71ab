"""Keras layers and constraints that defenses, detectors and attacks are made of."""

from keras_robust.layers.batch_normalization import BatchNormalization
from keras_robust.layers.centers import CosineCenters, DistanceCenters, max_mahalanobis_centers
from keras_robust.layers.code_mean import CodeMean
from keras_robust.layers.kernel_density import KernelDensity
from keras_robust.layers.random_noise import RandomNoise
from keras_robust.layers.straight_through import StraightThrough
from keras_robust.layers.weight_clip import WeightClip

__all__ = [
    "BatchNormalization",
    "CodeMean",
    "CosineCenters",
    "DistanceCenters",
    "KernelDensity",
    "RandomNoise",
    "StraightThrough",
    "WeightClip",
    "max_mahalanobis_centers",
]
