"""Learning-rate schedules by name, stated in epochs and made of Keras' schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_robust.errors import require
from keras_robust.registry import Registry

schedules: Registry[Callable[..., Any]] = Registry("schedule")


@schedules.register("constant")
def constant(learning_rate: float, steps: int, epochs: int) -> float:
    """The same learning rate throughout."""
    return learning_rate


@schedules.register("drops")
def drops(
    learning_rate: float, steps: int, epochs: int, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> Any:
    """Multiply the learning rate by `factor` at each epoch in `at` (shares of all epochs if below 1)."""
    counted = [epoch * epochs if epoch < 1 else epoch for epoch in at]
    require(
        counted == sorted(counted) and all(epoch > 0 for epoch in counted) and len(counted) > 0,
        f"drops.at must be rising positive epochs, at least one. Received: {list(at)} of {epochs} epochs.",
    )
    # Keras changes the rate after a boundary, not at it.
    boundaries = [round(epoch * steps) - 1 for epoch in counted]
    values = [learning_rate * factor**count for count in range(len(boundaries) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


@schedules.register("one_cycle")
def one_cycle(learning_rate: float, steps: int, epochs: int, warmup: float = 0.3) -> Any:
    """Rise linearly to `learning_rate` over the share `warmup` of training, then fall to 0 as a cosine."""
    require(0 <= warmup < 1, f"one_cycle.warmup must be a share in [0, 1). Received: {warmup}.")
    total = steps * epochs
    rise = min(round(warmup * total), total - 1)
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / 25, total - rise, warmup_target=learning_rate, warmup_steps=rise
    )
