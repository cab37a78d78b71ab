"""Wide residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_robust.errors import require, require_count
from keras_robust.models.assembly import assemble, image_input
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures
from keras_robust.models.residual import FAN_OUT_NORMAL, ResidualUnits


@architectures.register("wide_resnet")
def wide_resnet(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 16,
    width: int = 2,
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """WRN-depth-width: a 3×3×16 convolution and three stages of (depth − 4) / 6 pre-activation units.

    Stages have 16, 32, 64 channels times `width` and strides 1, 2, 2. Where the shape changes, the
    activated input feeds both the branch and a 1×1 convolution. No dropout.

    Args:
        input_shape: `(height, width, channels)`, any size.
        num_classes: number of logits.
        depth: 6n + 4, e.g. 16, 28, 34.
        width: the factor of the channels.
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    The latent is the global average of the last, activated feature maps: 64 × `width` features.

    Raises:
        InputError: an option is not as described.

    Source: Zagoruyko and Komodakis, BMVC 2016, Table 1; as used by TRADES, MAT and ATLD.
    """
    require_count(depth=depth, width=width)
    require(depth >= 10 and depth % 6 == 4, f"depth must be 6n + 4 with n >= 1; received {depth!r}.")
    images = image_input(input_shape, smallest=1, dtype=dtype)
    units = ResidualUnits(dtype, kernel_initializer=FAN_OUT_NORMAL)
    features = units.conv(images, 16)
    for channels, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for index in range((depth - 4) // 6):
            branch = [(3, channels), (3, channels)]
            features = units.pre_activation(features, branch, stride if index == 0 else 1)
    features = keras.layers.GlobalAveragePooling2D(dtype=dtype)(units.activate(features))
    return assemble(images, features, num_classes, head, name=f"wide_resnet_{depth}_{width}")
