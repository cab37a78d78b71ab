"""The mean of a code that an encoder describes by its moments."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import require


@keras.saving.register_keras_serializable("keras_robust")
class CodeMean(keras.layers.Layer):
    """The first half of `(B, 2 D)` features: means of a normal code, whose log-variances follow them.

    A variational encoder ends in it: deployed, it gives the mean; in training `defenses.VAECLA` draws
    the code from both halves.

    Raises:
        InputError: features that are not flat, or an odd number of them.

    Source: the reading of VAE-CLA in ER-Classifier (ICCV 2021); Kingma & Welling 2014.

    >>> import numpy as np
    >>> np.asarray(CodeMean()(np.arange(4.0, dtype="float32")[None])).tolist()
    [[0.0, 1.0]]
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        size = input_shape[-1]
        require(
            len(input_shape) == 2 and isinstance(size, int) and size % 2 == 0,
            f"A code's moments are flat, means and as many log-variances. Received: {tuple(input_shape)}.",
        )
        super().build(input_shape)

    def call(self, moments: Any) -> Any:
        return moments[:, : moments.shape[-1] // 2]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], (input_shape[1] or 0) // 2
