"""Learning rates of the players of a game."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_robust")
class AdjustedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """`factor` times what a schedule of batches says, for an optimizer that steps several times in each.

    Args:
        schedule: a `keras.optimizers.schedules.LearningRateSchedule`, stated in batches.
        factor: > 0.
        steps_per_batch: of the optimizer, >= 1.

    >>> import keras
    >>> schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.1])
    >>> adjusted = AdjustedSchedule(schedule, factor=2.0, steps_per_batch=2)
    >>> [round(float(adjusted(step)), 2) for step in range(3)]
    [2.0, 2.0, 0.2]
    """

    def __init__(self, schedule: Any, factor: float = 1.0, steps_per_batch: int = 1) -> None:
        super().__init__()
        self.schedule = schedule
        self.factor = factor
        self.steps_per_batch = steps_per_batch

    def __call__(self, step: Any) -> Any:
        return self.factor * self.schedule(keras.ops.floor_divide(step, self.steps_per_batch))

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "factor": self.factor,
            "steps_per_batch": self.steps_per_batch,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AdjustedSchedule:
        return cls(**{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])})


def copied(optimizer: keras.optimizers.Optimizer, factor: float = 1.0) -> keras.optimizers.Optimizer:
    """A fresh optimizer of the same kind, at `factor` times the learning rate."""
    copy = type(optimizer).from_config(optimizer.get_config())
    schedule = _schedule_of(copy)
    if schedule:
        copy.learning_rate = _adjusted(schedule, factor)
    elif factor != 1.0:
        copy.learning_rate = factor * float(copy.learning_rate.numpy())
    return copy


def pace(optimizer: keras.optimizers.Optimizer, steps_per_batch: int) -> None:
    """Make a schedule of the optimizer count batches; one that was compiled before does so already."""
    if (schedule := _schedule_of(optimizer)) is not None:
        optimizer.learning_rate = _adjusted(schedule, steps_per_batch=steps_per_batch)


def _adjusted(schedule: Any, factor: float = 1.0, steps_per_batch: int = 1) -> Any:
    """A schedule at `factor` times its rates, its steps counted anew."""
    if isinstance(schedule, AdjustedSchedule):
        schedule, factor = schedule.schedule, factor * schedule.factor
    if factor == steps_per_batch == 1:
        return schedule
    return AdjustedSchedule(schedule, factor, steps_per_batch)


def _schedule_of(optimizer: keras.optimizers.Optimizer) -> Any:
    rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    is_schedule = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    return rate if is_schedule else None
