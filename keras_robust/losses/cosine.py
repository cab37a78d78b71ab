"""Cosine distance between features: BIBO's term."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.directions import unit
from keras_robust.losses.feature_norm import flat_features


def cosine_distance(features: Any, others: Any) -> Any:
    """1 - cos(features, others), `(B,)` float32 in [0, 2].

    Args:
        features, others: `(B, ...)`; what an example has beyond its first axis is one vector.

    Its gradient is zero where both point the same way. Source: MAT (ICLR 2021 submission), CD.

    >>> import numpy as np
    >>> cosine_distance(np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]])).numpy().tolist()
    [1.0]
    """
    directions = unit(flat_features(features)), unit(flat_features(others))
    return 1.0 - ops.sum(directions[0] * directions[1], axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class BoundedInputBoundedOutput(keras.losses.Loss):
    """BIBO: mean cosine distance of clean features (`y_true`) and adversarial ones (`y_pred`).

    Both are `(B, ...)`, and the gradient goes through both. The adversarial images, which the paper takes
    where this is largest in a ball, come from `PGD(loss="cosine_distance")`; `defenses.MAT` makes them.

    Source: MAT (ICLR 2021 submission), BIBO.

    >>> import numpy as np
    >>> float(BoundedInputBoundedOutput()(np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]])))
    1.0
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "bounded_input_bounded_output",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return cosine_distance(y_true, y_pred)
