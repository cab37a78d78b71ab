"""Distributions that codes are drawn to, as samplers by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.errors import require
from keras_robust.noise import Noise
from keras_robust.registry import Registry

# Each maps a source of noise and a shape (batch first) to independent draws, float32.
priors: Registry[Callable[[Noise, Any], Any]] = Registry("prior")


@priors.register("normal")
def normal(noise: Noise, shape: Any) -> Any:
    """N(0, 1).

    >>> normal(Noise((0, 0)), (2, 3)).shape
    TensorShape([2, 3])
    """
    return noise.normal(shape)


@priors.register("uniform")
def uniform(noise: Noise, shape: Any) -> Any:
    """Uniform in (-3, 3).

    >>> uniform(Noise((0, 0)), (2, 3)).shape
    TensorShape([2, 3])
    """
    return noise.uniform(shape, -3.0, 3.0)


@priors.register("cauchy")
def cauchy(noise: Noise, shape: Any) -> Any:
    """Cauchy(0, 1), by the inverse of its distribution function; it has neither mean nor variance.

    >>> cauchy(Noise((0, 0)), (2, 3)).shape
    TensorShape([2, 3])
    """
    return tf.math.tan(math.pi * noise.uniform(shape, -0.5, 0.5))


def sample(name: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Independent draws from a prior.

    Args:
        name: "normal" N(0, 1), "uniform" (-3, 3) or "cauchy" (0, 1).
        shape: of the result.
        seed: the same seed gives the same draws.

    Returns:
        float32 array.

    Raises:
        InputError: unknown name, or a shape that is not of integers >= 0.

    Source: ER-Classifier (ICCV 2021), figure 9.

    >>> sample("uniform", (2, 4)).shape
    (2, 4)
    """
    prior = priors[name]
    require(
        len(shape) > 0 and all(isinstance(size, int) and size >= 0 for size in shape),
        f"shape must be integers >= 0, at least one. Received: shape={shape!r}.",
    )
    return np.asarray(prior(Noise((seed, 0)), tuple(shape)))
