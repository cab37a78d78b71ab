"""Norms of a difference of latents, scaled so that they do not grow with the number of features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_robust.errors import require


class FeatureNorm(NamedTuple):
    """A norm over the last axis.

    size: differences `(..., F)` to norms `(...)`.
    slope: its gradient, `(..., F)` to `(..., F)`; odd, and 0 at 0.
    """

    size: Callable[[Any], Any]
    slope: Callable[[Any], Any]


def _mean(differences: Any) -> Any:
    return ops.mean(ops.abs(differences), axis=-1)


def _mean_slope(differences: Any) -> Any:
    return ops.sign(differences) / differences.shape[-1]


def _root_mean_square(differences: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(differences), axis=-1))


def _root_mean_square_slope(differences: Any) -> Any:
    size = ops.expand_dims(_root_mean_square(differences), -1)
    return ops.divide_no_nan(differences, size) / differences.shape[-1]


def _largest(differences: Any) -> Any:
    return ops.max(ops.abs(differences), axis=-1)


def _largest_slope(differences: Any) -> Any:
    sizes = ops.abs(differences)
    largest = ops.cast(sizes == ops.max(sizes, axis=-1, keepdims=True), sizes.dtype)
    return ops.sign(differences) * largest / ops.sum(largest, axis=-1, keepdims=True)


_NORMS = {
    1: FeatureNorm(_mean, _mean_slope),
    2: FeatureNorm(_root_mean_square, _root_mean_square_slope),
    "inf": FeatureNorm(_largest, _largest_slope),
}


def feature_norm(norm: int | str) -> FeatureNorm:
    """The norm of order 1 (mean |d|), 2 (sqrt(mean d²)) or "inf" (max |d|) over the features.

    Order 1 is that of ADR's code; the others are scaled alike, so that weights carry over.

    Raises:
        InputError: another order.
    """
    require(norm in list(_NORMS), f'The norm of a latent is 1, 2 or "inf". Received: norm={norm!r}.')
    return _NORMS[norm]


def flat_features(latents: Any) -> Any:
    """Latents `(B, ...)` of any rank as float32 `(B, F)`."""
    return ops.cast(ops.reshape(latents, (-1, math.prod(latents.shape[1:]))), "float32")


def distance(latents: Any, others: Any, norm: int | str) -> Any:
    """Norm of each difference of two batches of latents `(B, ...)`: `(B,)` float32."""
    size, slope = feature_norm(norm)

    @ops.custom_gradient
    def sizes(differences: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            upstream = arguments[0] if upstream is None else upstream
            return ops.expand_dims(upstream, -1) * slope(differences)

        return size(differences), gradient

    return sizes(flat_features(latents) - flat_features(others))


def pairwise_distance(latents: Any, others: Any, norm: int | str) -> Any:
    """Norm of each latent `(B, ...)` minus each of the `others` `(C, ...)`: `(B, C)` float32.

    Neither it nor its gradient holds the `(B, C, F)` differences: both go through the rows one by one.
    """
    size, slope = feature_norm(norm)

    def pull(rows: Any, others: Any, upstream: Any) -> Any:
        """Gradient `(B, F)` with respect to the rows, of which `upstream` `(B, C)` weighs the distances."""

        def of_one(row: Any, weights: Any) -> Any:
            return ops.matmul(weights, slope(row - others))

        return _map(of_one, rows, upstream)

    @ops.custom_gradient
    def distances(rows: Any, others: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            upstream = arguments[0] if upstream is None else upstream
            return pull(rows, others, upstream), pull(others, rows, ops.transpose(upstream))

        return _map(lambda row: size(row - others), rows), gradient

    return distances(flat_features(latents), flat_features(others))


def _map(function: Callable[..., Any], *rows: Any) -> Any:
    """`function` of each row, stacked. One more row is passed and dropped: Keras cannot stack none."""
    padded = [ops.pad(part, ((0, 1), (0, 0))) for part in rows]
    return ops.map(lambda row: function(*row), tuple(padded))[:-1]
