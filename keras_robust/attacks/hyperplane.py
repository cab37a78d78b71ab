"""Projection onto a hyperplane inside a box, in the norm of a threat model."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_robust.threat import per_example

_ITERATIONS = 60  # an upper bound: each passes at least one pixel's bound, and ten are usual
_TINY = 1e-12  # of normals whose largest part is 1
_TINIEST = 1e-30


def step_to_hyperplane(points: Any, normal: Any, offset: Any, norm: str, bounds: tuple[float, float]) -> Any:
    """The smallest d with normal · (points + d) = offset and points + d inside the bounds.

    Where the box does not reach the hyperplane, d goes as far towards it as the box allows.

    Args:
        points, normal: `(B, n)` float32, the points inside the bounds.
        offset: `(B,)`.
        norm: "linf" or "l2": what is smallest.
        bounds: lowest and highest value.

    Source: Croce & Hein 2020 (FAB), equation 6. Along the ray of solutions without a box the distance
    to the hyperplane is concave and piecewise linear, so Newton's method from 0 rises to the root
    without passing it; it needs no sorting.
    """
    size = ops.maximum(ops.max(ops.abs(normal), axis=1), _TINIEST)
    normal, offset = normal / per_example(size, normal), offset / size
    gap = offset - ops.sum(normal * points, axis=1)
    towards = normal * per_example(ops.sign(gap), normal)
    ray = ops.sign(towards) if norm == "linf" else towards
    gap = ops.abs(gap)
    room = ops.where(ray > 0, bounds[1] - points, points - bounds[0])

    def moved(length: Any) -> Any:
        return ops.sign(ray) * ops.minimum(ops.abs(ray) * per_example(length, ray), room)

    def rise(length: Any) -> tuple[Any, Any]:
        """What is left of the gap at a length, and how fast it closes there."""
        free = ops.abs(ray) * per_example(length, ray) < room
        slope = ops.sum(ops.where(free, towards * ray, 0.0), axis=1)
        return gap - ops.sum(towards * moved(length), axis=1), slope

    def newton(count: Any, length: Any, left: Any, slope: Any) -> tuple[Any, Any, Any, Any]:
        length = length + ops.where(slope > 0, ops.maximum(left, 0.0) / (slope + _TINY), 0.0)
        return count + 1, length, *rise(length)

    def unfinished(count: Any, length: Any, left: Any, slope: Any) -> Any:
        return ops.any((left > 1e-6 * (gap + _TINY)) & (slope > _TINY))

    start = ops.zeros_like(gap)
    _, length, _, _ = ops.while_loop(
        unfinished,
        newton,
        (ops.zeros((), "int32"), start, *rise(start)),
        maximum_iterations=_ITERATIONS,
    )
    return moved(length)
