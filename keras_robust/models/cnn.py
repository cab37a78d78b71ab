"""Plain convolutional networks for small images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import keras

from keras_robust.errors import require, require_choice, require_count
from keras_robust.models.assembly import assemble, image_input
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures

# How many times wider the second pair of convolutions is.
_VARIANTS = {"literal": 1, "carlini": 2}


@architectures.register("cnn_4c3f")
def cnn_4c3f(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    filters: int = 32,
    hidden: int = 200,
    variant: str = "literal",
    latent: str = "4C",
    dropout: float = 0.5,
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """Four convolutions and three affine layers, "CNN-4C3F".

    [Conv n, Conv n, MaxPool 2] twice, then FC h, dropout, FC h, FC K. Convolutions are 3×3 without
    padding, He-normal; ReLU after every layer but the last. ADR has n, h = 32, 200 for MNIST and 64, 256
    for CIFAR-10.

    Args:
        input_shape: `(height, width, channels)`, at least 16×16.
        num_classes: number of logits, K.
        filters: channels of the first pair of convolutions, n.
        hidden: units of the hidden affine layers, h.
        variant: "literal" gives the second pair n channels too, as ADR's text does; "carlini" 2n, as
            the code of Carlini and Wagner, and of TRADES, does.
        latent: where the encoder ends; the layers are the same wherever. "2C" first pool, "3C" third
            convolution, "4C" flattened second pool, "4C+1FC" and "4C+2FC" first and second hidden layer.
        dropout: share of units dropped between the hidden layers in training, in [0, 1).
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    Raises:
        InputError: an option is not as described.

    Source: Bui et al., ECCV 2020, supplement (networks; Table 5 for the cuts).
    """
    require_choice("variant", variant, _VARIANTS)
    require_count(filters=filters, hidden=hidden)
    require(
        isinstance(dropout, (int, float)) and 0 <= dropout < 1,
        f"dropout must be in [0, 1); received {dropout!r}.",
    )
    images = image_input(input_shape, smallest=16, dtype=dtype)
    wide = filters * _VARIANTS[variant]

    def conv(channels: int) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            channels, 3, activation="relu", kernel_initializer="he_normal", dtype=dtype
        )

    def pool() -> keras.layers.Layer:
        return keras.layers.MaxPooling2D(2, dtype=dtype)

    def dense() -> keras.layers.Layer:
        return keras.layers.Dense(hidden, activation="relu", dtype=dtype)

    stages = {
        "2C": [conv(filters), conv(filters), pool()],
        "3C": [conv(wide)],
        "4C": [conv(wide), pool(), keras.layers.Flatten(dtype=dtype)],
        "4C+1FC": [dense()],
        "4C+2FC": [keras.layers.Dropout(dropout, dtype=dtype), dense()],
    }
    require_choice("latent", latent, stages)
    cut = list(stages).index(latent) + 1
    below, above = list(stages.values())[:cut], list(stages.values())[cut:]
    features = images
    for layer in chain.from_iterable(below):
        features = layer(features)
    between = list(chain.from_iterable(above))
    return assemble(images, features, num_classes, head, name="cnn_4c3f", hidden=between)


@architectures.register("small_cnn")
def small_cnn(
    input_shape: Sequence[int] = (8, 8, 1),
    num_classes: int = 10,
    *,
    filters: int = 16,
    hidden: int = 64,
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """A few thousand weights for 8×8 digits: [Conv n, MaxPool 2], [Conv 2n, MaxPool 2], FC h, FC K.

    Convolutions are 3×3, zero-padded, He-normal; ReLU after every layer but the last.

    Args:
        input_shape: `(height, width, channels)`, at least 4×4.
        num_classes: number of logits, K.
        filters: channels of the first convolution, n.
        hidden: size of the latent, h.
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    Raises:
        InputError: an option is not as described.
    """
    require_count(filters=filters, hidden=hidden)
    images = image_input(input_shape, smallest=4, dtype=dtype)
    features = images
    for channels in (filters, 2 * filters):
        features = keras.layers.Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer="he_normal", dtype=dtype
        )(features)
        features = keras.layers.MaxPooling2D(2, dtype=dtype)(features)
    features = keras.layers.Flatten(dtype=dtype)(features)
    features = keras.layers.Dense(hidden, activation="relu", kernel_initializer="he_normal", dtype=dtype)(
        features
    )
    return assemble(images, features, num_classes, head, name="small_cnn")
