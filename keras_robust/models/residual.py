"""The units that residual networks are stacked from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from keras_robust.layers import BatchNormalization

# N(0, 2 / (k² · output channels)); its untruncated form is what the wide and Madry's networks use.
FAN_OUT_NORMAL = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}


@dataclass(frozen=True)
class ResidualUnits:
    """Convolution, normalisation and units with one set of conventions.

    Args:
        dtype: Keras dtype policy of every layer.
        epsilon: added to the variance by batch normalisation, whose moving averages decay by 0.9.
        negative_slope: of the ReLU.
        kernel_initializer: of the convolutions, which are zero-padded and have no bias.
    """

    dtype: str | None
    epsilon: float = 1e-5
    negative_slope: float = 0.0
    kernel_initializer: str | dict = "he_normal"

    def conv(
        self, x: keras.KerasTensor, channels: int, kernel: int = 3, stride: int = 1
    ) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            channels,
            kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype,
        )(x)

    def normalize(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return BatchNormalization(momentum=0.9, epsilon=self.epsilon, dtype=self.dtype)(x)

    def rectify(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.ReLU(negative_slope=self.negative_slope, dtype=self.dtype)(x)

    def activate(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return self.rectify(self.normalize(x))

    def add(self, x: keras.KerasTensor, y: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.Add(dtype=self.dtype)([x, y])

    def project(self, x: keras.KerasTensor, channels: int, stride: int) -> keras.KerasTensor:
        """The 1×1 convolution of a shortcut that changes shape."""
        return self.conv(x, channels, kernel=1, stride=stride)

    def pre_activation(
        self,
        x: keras.KerasTensor,
        branch: Sequence[tuple[int, int]],
        stride: int,
        shortcut: Callable[[keras.KerasTensor, int, int], keras.KerasTensor] | None = None,
        activate_shortcut: bool | None = None,
    ) -> keras.KerasTensor:
        """Activate, then convolve; sum with the shortcut (He et al. 2016b, Fig. 1b).

        Args:
            x: feature maps.
            branch: (kernel, channels) of each convolution.
            stride: of the first convolution that is larger than 1×1.
            shortcut: maps (x, channels, stride) to the branch's shape where that is another than the
                input's; a projection by default.
            activate_shortcut: whether the shortcut too starts from the activated input; by default
                where the shape changes.
        """
        channels = branch[-1][1]
        changes = _changes_shape(x, channels, stride)
        activated = y = self.activate(x)
        for index, (kernel, width) in enumerate(branch):
            y = y if index == 0 else self.activate(y)
            y = self.conv(y, width, kernel, stride if index == _strided(branch) else 1)
        if activate_shortcut is None:
            activate_shortcut = changes
        straight = activated if activate_shortcut else x
        if changes:
            straight = (shortcut or self.project)(straight, channels, stride)
        return self.add(y, straight)

    def post_activation(
        self, x: keras.KerasTensor, branch: Sequence[tuple[int, int]], stride: int
    ) -> keras.KerasTensor:
        """Convolve and normalise; activate after the sum with the shortcut (He et al. 2016a, Fig. 2)."""
        channels = branch[-1][1]
        y = x
        for index, (kernel, width) in enumerate(branch):
            y = y if index == 0 else self.rectify(y)
            y = self.normalize(self.conv(y, width, kernel, stride if index == _strided(branch) else 1))
        if _changes_shape(x, channels, stride):
            x = self.normalize(self.project(x, channels, stride))
        return self.rectify(self.add(y, x))


def _changes_shape(x: keras.KerasTensor, channels: int, stride: int) -> bool:
    return stride != 1 or x.shape[-1] != channels


def _strided(branch: Sequence[tuple[int, int]]) -> int:
    return next(index for index, (kernel, _) in enumerate(branch) if kernel > 1)
