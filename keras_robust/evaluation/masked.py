"""Classifiers that hide their gradients on purpose, to calibrate the checks against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.models import LatentClassifier
from keras_robust.registry import Registry

masked: Registry[Callable[[LatentClassifier], LatentClassifier]] = Registry("masked classifier")


@masked.register("saturated")
def saturated(classifier: LatentClassifier, scale: float = 1e4) -> LatentClassifier:
    """`classifier` with its logits times `scale`: the softmax saturates and its gradient is zero.

    >>> from keras_robust import models
    >>> saturated(models.build("small_cnn")).output_shape
    (None, 10)
    """
    latent = keras.Input(classifier.head.input_shape[1:])
    head = keras.Sequential([latent, classifier.head, layers.Rescaling(scale)])
    return LatentClassifier(classifier.encoder, head)


@masked.register("quantized")
def quantized(classifier: LatentClassifier, levels: int = 5) -> LatentClassifier:
    """`classifier` on images rounded to `levels` values, which stops every gradient.

    Source: the input quantisation that Athalye, Carlini & Wagner 2018 broke.

    >>> from keras_robust import models
    >>> quantized(models.build("small_cnn"), levels=2).output_shape
    (None, 10)
    """
    return _after(Quantization(levels), classifier)


@masked.register("noisy")
def noisy(classifier: LatentClassifier, stddev: float = 0.2) -> LatentClassifier:
    """`classifier` on images with fresh Gaussian noise of `stddev` in each call.

    >>> from keras_robust import models
    >>> noisy(models.build("small_cnn")).output_shape
    (None, 10)
    """
    return _after(InferenceNoise(stddev), classifier)


@masked.register("purifying")
def purifying(classifier: LatentClassifier, step: float = 0.1) -> LatentClassifier:
    """`classifier` on images that were first moved by `step` towards the class it holds likeliest.

    >>> from keras_robust import models
    >>> purifying(models.build("small_cnn")).output_shape
    (None, 10)
    """
    return _after(Purification(classifier, step), classifier)


@keras.saving.register_keras_serializable("keras_robust")
class Quantization(layers.Layer):
    """Rounds values in [0, 1] to `levels` evenly spaced ones."""

    def __init__(self, levels: int, **options: Any) -> None:
        super().__init__(**options)
        self.levels = levels

    def call(self, images: Any) -> Any:
        return ops.round(images * (self.levels - 1)) / (self.levels - 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": self.levels}


@keras.saving.register_keras_serializable("keras_robust")
class InferenceNoise(layers.Layer):
    """Adds Gaussian noise of `stddev`, in training and in inference."""

    def __init__(self, stddev: float, **options: Any) -> None:
        super().__init__(**options)
        self.stddev = stddev
        self.seeds = keras.random.SeedGenerator()

    def call(self, images: Any) -> Any:
        return images + keras.random.normal(ops.shape(images), stddev=self.stddev, seed=self.seeds)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev}


@keras.saving.register_keras_serializable("keras_robust")
class Purification(layers.Wrapper):
    """Moves images in [0, 1] by one sign step of size `step` up the largest logit of `layer`."""

    def __init__(self, layer: keras.Model, step: float, **options: Any) -> None:
        super().__init__(layer, **options)
        self.step = step

    def call(self, images: Any) -> Any:
        _, gradient = value_and_input_gradient(lambda moved: ops.max(self.layer(moved), axis=-1), images)
        return ops.clip(images + self.step * ops.sign(gradient), 0.0, 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "step": self.step}


def _after(layer: layers.Layer, classifier: LatentClassifier) -> LatentClassifier:
    images = keras.Input(classifier.input_shape[1:])
    return LatentClassifier(keras.Sequential([images, layer, classifier.encoder]), classifier.head)
