"""VGG for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_robust.errors import require_above_zero, unknown_name
from keras_robust.layers import BatchNormalization
from keras_robust.models.assembly import assemble, image_input, require_sizes
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures

_WIDTHS = (64, 128, 256, 512, 512)
# Convolutions per stage, by depth.
_CONVOLUTIONS = {9: (1, 1, 1, 1, 2), 11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@architectures.register("vgg")
def vgg(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 11,
    batch_norm: bool = True,
    width_multiplier: float = 1.0,
    hidden: Sequence[int] = (),
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """The convolutions of VGG-9, -11, -16 or -19, global average pooling, and affine layers.

    Each of the five stages ends in a 2×2 max pool, for as long as there is something to pool: five pools
    for 32×32, four for 28×28. Kernels are He-normal; a convolution has a bias unless it is normalised.

    Args:
        input_shape: `(height, width, channels)`, any size.
        num_classes: number of logits.
        depth: 11, 16 or 19; 9 has one convolution in each stage but the last, which has two.
        batch_norm: normalise after every convolution.
        width_multiplier: scales the channels 64, 128, 256, 512, 512; positive.
        hidden: units of the affine layers with ReLU between the latent and the last layer.
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    The latent has 512 × `width_multiplier` features.

    Raises:
        InputError: an option is not as described.

    Source: Simonyan and Zisserman, ICLR 2015, Table 1 (A, D, E), without the hidden affine layers.
    """
    require_sizes(0, hidden=hidden)
    images = image_input(input_shape, smallest=1, dtype=dtype)
    features = vgg_features(images, depth, batch_norm, width_multiplier, dtype)
    features = keras.layers.GlobalAveragePooling2D(dtype=dtype)(features)
    top = [keras.layers.Dense(units, activation="relu", dtype=dtype) for units in hidden]
    return assemble(images, features, num_classes, head, name=f"vgg_{depth}", hidden=top)


def vgg_features(
    images: keras.KerasTensor, depth: int, batch_norm: bool, width_multiplier: float, dtype: str | None
) -> keras.KerasTensor:
    """The symbolic feature maps of the five stages; for the arguments see `vgg`."""
    if depth not in _CONVOLUTIONS:
        raise unknown_name("depth of vgg", depth, map(str, _CONVOLUTIONS))
    require_above_zero(width_multiplier=width_multiplier)
    features = images
    for width, convolutions in zip(_WIDTHS, _CONVOLUTIONS[depth], strict=True):
        channels = max(1, round(width * width_multiplier))
        for _ in range(convolutions):
            features = _convolve(features, channels, batch_norm, dtype)
        if min(features.shape[1:3]) >= 2:
            features = keras.layers.MaxPooling2D(2, dtype=dtype)(features)
    return features


def _convolve(x: keras.KerasTensor, channels: int, batch_norm: bool, dtype: str | None) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        channels, 3, padding="same", use_bias=not batch_norm, kernel_initializer="he_normal", dtype=dtype
    )(x)
    if batch_norm:
        x = BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype)(x)
    return keras.layers.ReLU(dtype=dtype)(x)
