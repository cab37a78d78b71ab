"""The residual network of Madry's CIFAR-10 challenge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_robust.errors import require_choice
from keras_robust.models.assembly import assemble, image_input
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures
from keras_robust.models.residual import FAN_OUT_NORMAL, ResidualUnits

_WIDTHS = {"narrow": (16, 32, 64), "wide": (160, 320, 640)}


@keras.saving.register_keras_serializable("keras_robust")
class ImageStandardization(keras.layers.Layer):
    """Shifts and scales each image to mean 0 and variance 1 over its pixels and channels.

    The deviation is bounded below by 1/√(number of values), so that a uniform image maps to zeros.

    Call arguments:
        images: `(B, H, W, C)`.
    """

    def call(self, images: Any) -> Any:
        axes = (1, 2, 3)
        size = images.shape[1] * images.shape[2] * images.shape[3]
        centered = images - keras.ops.mean(images, axes, keepdims=True)
        variance = keras.ops.mean(keras.ops.square(centered), axes, keepdims=True)
        # Bounded before the root, whose gradient is infinite at zero.
        return centered * keras.ops.rsqrt(keras.ops.maximum(variance, 1.0 / size))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@architectures.register("rn_34_10")
def rn_34_10(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    widths: str = "narrow",
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """ "RN-34-10": per-image standardisation, a 3×3×16 convolution, three stages of five units.

    Pre-activation units with leaky ReLU 0.1 and strides 1, 2, 2. Shortcuts have no weights: average pooling
    by the stride and zero channels on both sides. The very first unit activates before its branch.

    Args:
        input_shape: `(height, width, channels)`, any size.
        num_classes: number of logits.
        widths: "narrow" has 16, 32, 64 channels (ADR); "wide" 160, 320, 640 (Madry's WRN-32-10).
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the first (the standardisation) and the last, which
            are float32.

    The latent is the global average of the last, activated feature maps: 64 or 640 features.

    Raises:
        InputError: an option is not as described.

    Source: Bui et al., ECCV 2020, and Madry et al., ICLR 2018, with its code.
    """
    require_choice("widths of rn_34_10", widths, _WIDTHS)
    images = image_input(input_shape, smallest=1, dtype=dtype)
    units = ResidualUnits(dtype, epsilon=1e-3, negative_slope=0.1, kernel_initializer=FAN_OUT_NORMAL)
    features = units.conv(ImageStandardization(dtype="float32")(images), 16)
    for stage, (channels, stride) in enumerate(zip(_WIDTHS[widths], (1, 2, 2), strict=True)):
        for index in range(5):
            features = units.pre_activation(
                features,
                [(3, channels), (3, channels)],
                stride if index == 0 else 1,
                shortcut=_pool_and_pad(dtype),
                activate_shortcut=stage == index == 0,
            )
    features = keras.layers.GlobalAveragePooling2D(dtype=dtype)(units.activate(features))
    return assemble(images, features, num_classes, head, name=f"rn_34_10_{widths}")


def _pool_and_pad(dtype: str | None) -> Callable[[keras.KerasTensor, int, int], keras.KerasTensor]:
    def shortcut(x: keras.KerasTensor, channels: int, stride: int) -> keras.KerasTensor:
        x = keras.layers.AveragePooling2D(stride, padding="same", dtype=dtype)(x)
        missing = channels - x.shape[-1]
        return keras.ops.pad(x, [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)])

    return shortcut
