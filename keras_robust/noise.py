"""Random tensors as a pure function of a key, so that a resumed or sharded run draws the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_PRIME = 2**31 - 1
_MULTIPLIER = 1_000_003


def reseed(model: keras.Model, noise: Noise) -> None:
    """Make what the layers of `model` draw from now on, such as dropout, a function of `noise`.

    Nothing is done to a function in the place of a model.
    """
    for index, state in enumerate(_states(model)):
        state.assign(tf.cast(noise.fold(index).seed(), state.dtype))


@contextmanager
def reseeded(model: keras.Model, noise: Noise) -> Iterator[None]:
    """Within it the layers of `model` draw from `noise`; then they go on with what they would have drawn."""
    before = [np.copy(keras.ops.convert_to_numpy(state)) for state in _states(model)]
    reseed(model, noise)
    try:
        yield
    finally:
        for state, value in zip(_states(model), before, strict=True):
            state.assign(value)


def _states(model: keras.Model) -> list[keras.Variable]:
    variables = getattr(model, "variables", [])
    return [variable for variable in variables if variable.name == "seed_generator_state"]


class Noise:
    """A source of random tensors that depends only on a key and the number of draws made.

    Args:
        key: two integers (Python or scalar tensors), for example (run seed, step).
        shard: (index, count): this replica's place. Tensors are drawn for the batch of all replicas
            and sliced, so that several devices together draw what one device would.

    >>> noise = Noise((0, 7))
    >>> bool((noise.uniform((2, 2)) == Noise((0, 7)).uniform((2, 2))).numpy().all())
    True
    """

    def __init__(self, key: tuple[Any, Any], shard: tuple[Any, int] = (0, 1)) -> None:
        self.key = (tf.cast(key[0], tf.int64), tf.cast(key[1], tf.int64))
        self.shard = shard
        self.draws = 0

    def seed(self) -> Any:
        """The seed of the next draw, int32 `(2,)`."""
        self.draws += 1
        return tf.cast(tf.stack(self._mixed(self.draws)), tf.int32)

    def fold(self, index: Any) -> Noise:
        """An independent source for each integer `index` (a Python int or a scalar tensor)."""
        return Noise(self._mixed(-1 - tf.cast(index, tf.int64)), self.shard)

    def uniform(self, shape: Any, low: float = 0.0, high: float = 1.0) -> Any:
        """Float32 tensor, uniform in (low, high), of this replica's `shape` (batch first)."""
        return low + (high - low) * self._unit(shape)

    def normal(self, shape: Any) -> Any:
        """Float32 tensor, standard normal, of this replica's `shape` (batch first)."""
        return tf.math.ndtri(self._unit(shape))

    def _unit(self, shape: Any) -> Any:
        """Uniform in the open interval (0, 1) for the batch of all replicas, this replica's part.

        Made from raw bits: TensorFlow's own floats differ between XLA and the plain graph.
        """
        index, count = self.shard
        full = (shape[0] * count, *shape[1:])
        bits = tf.random.stateless_uniform(full, self.seed(), None, None, tf.uint32, alg="philox")
        unit = (tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.float32) + 0.5) * 2.0**-23
        return unit if count == 1 else unit[index * shape[0] : (index + 1) * shape[0]]

    def _mixed(self, index: Any) -> tuple[Any, Any]:
        return (self.key[0] * _MULTIPLIER + index) % _PRIME, self.key[1]
