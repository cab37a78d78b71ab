"""What turns features into logits, by name: the option `head` of every architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_robust.errors import require, require_count
from keras_robust.layers import CosineCenters, DistanceCenters
from keras_robust.registry import Registry
from keras_robust.schema import check_options

heads: Registry[Callable[..., keras.layers.Layer]] = Registry("head")


@heads.register("cosine_centers")
def cosine_centers(num_classes: int, scale: float = 1.0, normalize: bool = False) -> keras.layers.Layer:
    """Fixed centres, the largest cosine wins: `layers.CosineCenters`, the head of MAT."""
    return CosineCenters(num_classes, scale, normalize, name="logits")


@heads.register("distance_centers")
def distance_centers(num_classes: int, scale: float = 10.0) -> keras.layers.Layer:
    """Fixed centres, the nearest wins: `layers.DistanceCenters`, the head of MMC."""
    return DistanceCenters(num_classes, scale, name="logits")


def affine(num_classes: int) -> keras.layers.Layer:
    """What every architecture has without the option: an affine layer."""
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")


def center_head(
    features: keras.KerasTensor, num_classes: int, head: Mapping[str, Any]
) -> tuple[keras.KerasTensor, keras.layers.Layer]:
    """The latent that a head of centres classifies, and that head.

    The latent is an affine layer of the `features`, as in the authors' code of MMC: centres have negative
    coordinates, which features after a ReLU could not follow. It is float32 under any policy.

    Args:
        features: symbolic `(B, F)`.
        num_classes: number of logits.
        head: `{"name": a name in heads, "dim": size of the latent, default F, **options of that head}`.

    Raises:
        InputError: features that are not flat, an unknown head or option, or a bad value.
    """
    require(
        isinstance(head, Mapping) and "name" in head,
        f"head must be a mapping with a name. Received: {head!r}. Valid names: {', '.join(heads)}.",
    )
    build = heads[head["name"]]
    options = {key: value for key, value in head.items() if key not in ("name", "dim")}
    check_options(f"head {head['name']!r}", options, build, supplied=("num_classes",))
    require(
        len(features.shape) == 2,
        f"A head of centres takes flat features. Received: a latent of shape {features.shape}.",
    )
    dim = head.get("dim", features.shape[-1])
    require_count(dim=dim)
    to_latent = keras.layers.Dense(
        dim, kernel_initializer="he_normal", dtype="float32", name="center_features"
    )
    return to_latent(features), build(num_classes, **options)
