"""Optimal transport between the features of two batches."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.directions import unit
from keras_robust.errors import require_above_zero, require_count
from keras_robust.losses.feature_norm import flat_features


def transport_plan(
    costs: Any, regularization: float = 0.01, iterations: int = 100, tolerance: float = 0.1
) -> Any:
    """Sinkhorn's plan between two uniform distributions, in the log domain: `(B, C)` float32, of sum 1.

    Args:
        costs: `(B, C)`.
        regularization: weight of the entropy, > 0, in the units of the costs.
        iterations: at most so many.
        tolerance: stop once the potentials of the rows move by less than this, summed over the rows.

    Raises:
        InputError: an option is not as described.

    Source: Cuturi 2013; stopping rule and defaults of Feature Scattering (Zhang & Wang 2019).

    >>> import numpy as np
    >>> transport_plan(1.0 - np.eye(2, dtype="float32")).numpy().round(2).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    check_transport(regularization, iterations, tolerance)
    costs = ops.cast(costs, "float32")
    rows, columns = (ops.cast(size, "float32") for size in ops.shape(costs))

    def exponents(u: Any, v: Any) -> Any:
        return (ops.expand_dims(u, 1) + ops.expand_dims(v, 0) - costs) / regularization

    def scale(u: Any, v: Any, _: Any) -> tuple[Any, Any, Any]:
        moved = u - regularization * (ops.log(rows) + ops.logsumexp(exponents(u, v), axis=1))
        v = v - regularization * (ops.log(columns) + ops.logsumexp(exponents(moved, v), axis=0))
        return moved, v, ops.sum(ops.abs(moved - u))

    start = ops.zeros_like(costs[:, 0]), ops.zeros_like(costs[0]), ops.convert_to_tensor(float("inf"))
    u, v, _ = ops.while_loop(
        lambda u, v, change: change >= tolerance, scale, start, maximum_iterations=iterations
    )
    return ops.exp(exponents(u, v))


def transport_cost(
    features: Any,
    others: Any,
    regularization: float = 0.01,
    iterations: int = 100,
    tolerance: float = 0.1,
) -> Any:
    """What each of the others contributes to the transport distance, `(B,)` float32; their mean is it.

    Moving mass costs the cosine distance. The plan is held fixed in the gradient, which by the envelope
    theorem is that of the regularised distance. The batch is coupled: an example's value depends on all.

    Args:
        features, others: `(B, ...)`; what an example has beyond its first axis is one vector.
        regularization, iterations, tolerance: of `transport_plan`.

    Raises:
        InputError: an option is not as described.

    Source: Feature Scattering, Zhang & Wang 2019, equation 5.

    >>> import numpy as np
    >>> transport_cost(np.eye(2), -np.eye(2)).numpy().round(2).tolist()
    [1.0, 1.0]
    """
    directions = unit(flat_features(features)), unit(flat_features(others))
    costs = 1.0 - ops.matmul(directions[0], ops.transpose(directions[1]))
    plan = ops.stop_gradient(transport_plan(ops.stop_gradient(costs), regularization, iterations, tolerance))
    return ops.cast(ops.shape(costs)[1], "float32") * ops.sum(plan * costs, axis=0)


def check_transport(regularization: Any, iterations: Any, tolerance: Any) -> None:
    """Refuse what is not an option of `transport_plan`."""
    require_above_zero(regularization=regularization, tolerance=tolerance)
    require_count(iterations=iterations)


@keras.saving.register_keras_serializable("keras_robust")
class TransportDistance(keras.losses.Loss):
    """Optimal transport distance of two batches of features, `y_true` and `y_pred`, both `(B, ...)`.

    Args:
        regularization: weight of the entropy, > 0.
        iterations: of Sinkhorn's algorithm, at most.
        tolerance: stop once the potentials of the rows move by less than this, summed over the rows.

    The distance is that of the batch that is given: under a distribution strategy, of each replica's own.

    Raises:
        InputError: an option that is not as described.

    Source: Feature Scattering, Zhang & Wang 2019, equation 5.

    >>> import numpy as np
    >>> features = np.eye(2, dtype="float32")
    >>> round(float(TransportDistance()(features, features[::-1])), 4)
    0.0
    """

    def __init__(
        self,
        regularization: float = 0.01,
        iterations: int = 100,
        tolerance: float = 0.1,
        reduction: str = "sum_over_batch_size",
        name: str = "transport_distance",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_transport(regularization, iterations, tolerance)
        self.options: dict[str, Any] = {
            "regularization": regularization,
            "iterations": iterations,
            "tolerance": tolerance,
        }

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return transport_cost(y_true, y_pred, **self.options)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}
