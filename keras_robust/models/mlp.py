"""Fully connected networks for toy data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_robust.models.assembly import assemble, require_policy, require_sizes
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures


@architectures.register("mlp")
def mlp(
    input_shape: Sequence[int] = (2,),
    num_classes: int = 2,
    *,
    hidden: Sequence[int] = (64, 64),
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """Affine layers with ReLU between them, He-normal.

    Args:
        input_shape: shape of one example, `(features,)`; an image is flattened.
        num_classes: number of logits.
        hidden: units of the hidden layers, at least one; the last one is the latent.
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    Raises:
        InputError: an option is not as described.
    """
    require_sizes(input_shape=input_shape, hidden=hidden)
    require_policy(dtype)
    images = keras.Input(tuple(input_shape), name="images")
    features = keras.layers.Flatten(dtype=dtype)(images)
    for units in hidden:
        features = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", dtype=dtype)(
            features
        )
    return assemble(images, features, num_classes, head, name="mlp")
