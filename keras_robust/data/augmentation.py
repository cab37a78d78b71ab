"""Augmentation by name: keras-cv layers made into pure functions of (images, seed).

keras-cv draws from generators with a state, so what a batch sees would depend on all batches before it.
Here the layers draw from a seed that is handed in, so a resumed run sees what the uninterrupted one saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import keras
import keras_cv
import tensorflow as tf

from keras_robust.errors import InputError, require
from keras_robust.registry import Registry
from keras_robust.schema import check_options

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Spec = str | Mapping[str, Any]

augmentations: Registry[Callable[..., keras.layers.Layer]] = Registry("augmentation")


def build(specs: Iterable[Spec], image_shape: tuple[int, ...]) -> Augmentation:
    """One function that applies augmentations in order.

    Args:
        specs: names in `augmentations`, or mappings `{"name": ..., option: value}`.
        image_shape: `(H, W, C)` of one image.

    Returns:
        A function of images `(B, H, W, C)`, float32 in [0, 1], and an integer seed `(2,)`, to images of the
        same kind. Each image gets draws of its own; equal arguments give equal images.

    Raises:
        InputError: unknown name or option, or images that the augmentation is not made for.

    >>> augment = build(["pad_crop", {"name": "flip", "rate": 0.5}], (32, 32, 3))
    >>> augment(tf.zeros((8, 32, 32, 3)), seed=(0, 1)).shape
    TensorShape([8, 32, 32, 3])
    """
    functions = [_stateless(_layer(spec, image_shape)) for spec in specs]

    def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for number, function in enumerate(functions):
            images = function(images, tf.random.fold_in(seed, number))
        return tf.clip_by_value(images, 0.0, 1.0) if functions else images

    return augment


@keras.saving.register_keras_serializable("keras_robust")
class PadCrop(keras_cv.layers.VectorizedBaseImageAugmentationLayer):
    """Pad with zeros and crop back to the size at an offset drawn per image.

    Written here because keras-cv's RandomCrop resamples: it skips rows and favours inner offsets.
    """

    def __init__(self, padding: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def get_random_transformation_batch(self, batch_size: Any, **kwargs: Any) -> tf.Tensor:
        return self._random_generator.uniform((batch_size, 2), 0, 2 * self.padding + 1, dtype=tf.int32)

    def augment_images(self, images: tf.Tensor, transformations: tf.Tensor, **kwargs: Any) -> tf.Tensor:
        height, width = images.shape[1:3]
        sides = [self.padding, self.padding]
        padded = tf.pad(images, [[0, 0], sides, sides, [0, 0]])
        rows = transformations[:, :1] + tf.range(height)
        columns = transformations[:, 1:] + tf.range(width)
        return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


@augmentations.register("pad_crop")
def pad_crop(image_shape: tuple[int, ...], padding: int = 4) -> keras.layers.Layer:
    """Zero padding of `padding` pixels a side, then a random crop of the original size."""
    require(padding >= 0, f"padding must be an integer >= 0. Received: {padding}.")
    return PadCrop(padding)


@augmentations.register("flip")
def flip(image_shape: tuple[int, ...], rate: float = 0.5) -> keras.layers.Layer:
    """Mirror left and right, with probability `rate`."""
    return keras_cv.layers.RandomFlip("horizontal", rate=rate)


@augmentations.register("cutout")
def cutout(image_shape: tuple[int, ...], size: int = 8) -> keras.layers.Layer:
    """A black square of `size` pixels at a random centre (DeVries and Taylor, arXiv:1708.04552)."""
    height, width = (size / side for side in image_shape[:2])
    return keras_cv.layers.RandomCutout((height, height), (width, width))


@augmentations.register("rotate")
def rotate(image_shape: tuple[int, ...], degrees: float = 15.0) -> keras.layers.Layer:
    """A rotation by an angle up to `degrees` either way, black outside."""
    return keras_cv.layers.RandomRotation(degrees / 360, fill_mode="constant")


@augmentations.register("color_jitter")
def color_jitter(
    image_shape: tuple[int, ...],
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.05,
) -> keras.layers.Layer:
    """Random colours.

    `brightness` is the largest shift, `contrast` and `saturation` the largest relative change, `hue` the
    largest turn as a share of the colour circle, at most 0.5; `saturation` is at most 1.
    """
    _require_rgb("color_jitter", image_shape)
    require(
        isinstance(saturation, Real) and 0 <= saturation <= 1,
        f"saturation must be in [0, 1]. Received: {saturation!r}.",
    )
    low, high = 1 - saturation, 1 + saturation
    return keras_cv.layers.RandomColorJitter(
        value_range=(0, 1),
        brightness_factor=brightness,
        contrast_factor=contrast,
        saturation_factor=(low / (1 + low), high / (1 + high)),  # keras-cv maps x to x / (1 - x)
        hue_factor=2 * hue,  # keras-cv halves it
    )


@augmentations.register("rand_augment")
def rand_augment(image_shape: tuple[int, ...], count: int = 2, magnitude: float = 0.5) -> keras.layers.Layer:
    """`count` operations per image, of strength `magnitude` in [0, 1] (Cubuk et al., arXiv:1909.13719)."""
    _require_rgb("rand_augment", image_shape)
    return keras_cv.layers.RandAugment((0, 1), augmentations_per_image=count, magnitude=magnitude)


def _require_rgb(name: str, image_shape: tuple[int, ...]) -> None:
    require(image_shape[-1] == 3, f"{name} needs images of 3 channels. Received: image shape {image_shape}.")


def _layer(spec: Spec, image_shape: tuple[int, ...]) -> keras.layers.Layer:
    require(
        isinstance(spec, (str, Mapping)),
        f"An augmentation is a name, or a mapping with a name. Received: {spec!r}.",
    )
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    make = augmentations[name]  # type: ignore[index]
    require(len(image_shape) == 3, f"{name} needs images (H, W, C). Received: image shape {image_shape}.")
    try:
        check_options(f"augmentation {name!r}", options, make, supplied=("image_shape",))
        return make(image_shape, **options)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Augmentation {name!r} with options {options}: {error}") from error


class _Draws:
    """Random numbers as functions of a seed, in the place of a keras-cv layer's `tf.random.Generator`."""

    def __init__(self) -> None:
        self._seed: Any = None
        self._number = 0

    def start(self, seed: tf.Tensor) -> None:
        self._seed, self._number = seed, 0

    def uniform(self, shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = tf.float32) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, self._next_seed(), minval, maxval, dtype)

    def normal(self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = tf.float32) -> tf.Tensor:
        return tf.random.stateless_normal(shape, self._next_seed(), mean, stddev, dtype)

    def _next_seed(self) -> tf.Tensor:
        self._number += 1
        return tf.random.fold_in(self._seed, self._number)


def _stateless(layer: keras.layers.Layer) -> Augmentation:
    draws = _Draws()
    for part in layer._flatten_layers():
        _take_draws_from(part, draws)

    def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws.start(seed)
        return layer(images, training=True)

    # These layers map one traced function over the images: each image needs a seed of its own.
    one_by_one = isinstance(layer, keras_cv.layers.BaseImageAugmentationLayer)
    return _per_image(augment) if one_by_one else augment


def _take_draws_from(layer: keras.layers.Layer, draws: _Draws) -> None:
    layer.dtype_policy = "float32"  # whatever the global policy is
    layer._random_generator = draws
    for name, value in list(vars(layer).items()):
        if isinstance(value, keras_cv.core.UniformFactorSampler | keras_cv.core.NormalFactorSampler):
            setattr(layer, name, _sampler(value, draws))


def _sampler(sampler: Any, draws: _Draws) -> Callable[..., tf.Tensor]:
    def uniform(shape: Any = (), dtype: Any = "float32") -> tf.Tensor:
        return draws.uniform(shape, sampler.lower, sampler.upper, dtype)

    def normal(shape: Any = (), dtype: Any = "float32") -> tf.Tensor:
        drawn = draws.normal(shape, sampler.mean, sampler.stddev, dtype)
        return tf.clip_by_value(drawn, sampler.min_value, sampler.max_value)

    return uniform if isinstance(sampler, keras_cv.core.UniformFactorSampler) else normal


def _per_image(augment: Augmentation) -> Augmentation:
    def augment_each(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds = tf.random.stateless_uniform((tf.shape(images)[0], 2), seed, None, None, tf.int32)
        return tf.map_fn(lambda pair: augment(*pair), (images, seeds), fn_output_signature=images.dtype)

    return augment_each
