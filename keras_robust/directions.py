"""Length and direction of features, safe at zero."""

from __future__ import annotations

from typing import Any

from keras import ops

_TINY = 1e-12  # inside roots, whose gradient is infinite at zero


def length(features: Any) -> Any:
    """Euclidean length over the last axis, which is kept; has a gradient at zero."""
    return ops.sqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + _TINY)


def unit(features: Any) -> Any:
    """The features `(B, d)` at length 1, in float32; those of length zero stay zero."""
    features = ops.cast(features, "float32")
    return features / length(features)
