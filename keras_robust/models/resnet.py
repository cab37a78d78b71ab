"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_robust.errors import require_count, unknown_name
from keras_robust.models.assembly import assemble, image_input
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures
from keras_robust.models.residual import ResidualUnits

# By depth: channels of the first stage, number of stages, and units in each.
_STAGES = {18: (64, 4, 2), 32: (16, 3, 5)}


@architectures.register("resnet")
def resnet(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 18,
    width: int | None = None,
    version: int = 1,
    bottleneck: bool = False,
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """ResNet-18 with a 3×3 stem, or the CIFAR ResNet-32.

    Args:
        input_shape: `(height, width, channels)`, any size.
        num_classes: number of logits.
        depth: 18 (four stages, two units each) or 32 (three stages, five units each). Every stage but the
            first halves the resolution and doubles the channels.
        width: channels of the first stage; None: 64 at depth 18, 16 at depth 32.
        version: 1 activates after the sum with the shortcut, 2 before the convolutions.
        bottleneck: make each unit of a 1×1, a 3×3 and a 1×1 convolution, the last four times wider,
            instead of two 3×3. With depth 32 and version 2 the latent has 256 features, as in the
            Max-Mahalanobis studies, which count the units as if they had two convolutions.
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    The latent is the global average of the last, activated feature maps. Shortcuts that change shape are
    1×1 convolutions. Kernels are He-normal.

    Raises:
        InputError: an option is not as described.

    Source: He et al., CVPR 2016 (version 1) and ECCV 2016 (version 2).
    """
    if depth not in _STAGES:
        raise unknown_name("depth of resnet", depth, map(str, _STAGES))
    units = ResidualUnits(dtype)
    kinds = {1: units.post_activation, 2: units.pre_activation}
    if version not in kinds:
        raise unknown_name("version of resnet", version, map(str, kinds))
    images = image_input(input_shape, smallest=1, dtype=dtype)
    usual, stages, repeats = _STAGES[depth]
    width = usual if width is None else width
    require_count(width=width)
    # The pre-activation units bring the stem's activation with them.
    features = units.conv(images, width)
    features = units.activate(features) if version == 1 else features
    for stage in range(stages):
        channels = width * 2**stage
        branch = _bottleneck(channels) if bottleneck else [(3, channels), (3, channels)]
        for index in range(repeats):
            features = kinds[version](features, branch, 2 if stage > 0 and index == 0 else 1)
    features = units.activate(features) if version == 2 else features
    features = keras.layers.GlobalAveragePooling2D(dtype=dtype)(features)
    return assemble(images, features, num_classes, head, name=f"resnet_{depth}_v{version}")


def _bottleneck(channels: int) -> list[tuple[int, int]]:
    return [(1, channels), (3, channels), (1, 4 * channels)]
