"""Normal noise that is not switched off after training."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import require_not_negative


@keras.saving.register_keras_serializable("keras_robust")
class RandomNoise(keras.layers.Layer):
    """Adds N(0, stddev²) to every value, in training and in inference.

    Args:
        stddev: >= 0, in the units of what it is added to.
        seed: of the draws.
        options: those of `keras.layers.Layer`.

    Raises:
        InputError: another stddev.

    Source: Liu et al. 2018, "Towards robust neural networks via random self-ensemble", section 3.2.

    >>> import numpy as np
    >>> images = np.zeros((1, 2, 2, 1), "float32")
    >>> bool((np.asarray(RandomNoise(0.1)(images)) != 0).all())
    True
    """

    def __init__(self, stddev: float, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        require_not_negative(stddev=stddev)
        self.stddev = stddev
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any) -> Any:
        noise = keras.random.normal(keras.ops.shape(inputs), stddev=self.stddev, seed=self.seed_generator)
        return inputs + keras.ops.cast(noise, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}
