"""SO: the length of FTC's gradient."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.directions import length, unit
from keras_robust.losses.centers import FixedCenterLoss, center_of


def second_order(labels: Any, features: Any, centers: Any) -> Any:
    """‖∂FTC / ∂features‖₂ in closed form, `(B,)` float32.

    It is sin(theta) / ‖features‖, theta being the angle between the features and the centre of the label:
    long features make it small too, and nothing in FTC or BIBO, which see angles only, holds them short.
    Where theta is zero it is zero (within 1e-6 / ‖features‖), and so is its gradient; features of length zero
    count as of length 1e-6.

    Args:
        labels: `(B,)` integers.
        features: `(B, d)`.
        centers: `(L, d)`, of any length.

    Source: MAT (ICLR 2021 submission), SO, the norm not squared.

    >>> import numpy as np
    >>> second_order(np.array([0]), np.array([[0.0, 2.0]]), np.eye(2)).numpy().tolist()
    [0.5]
    """
    features = ops.cast(features, "float32")
    direction, target = unit(features), unit(center_of(labels, centers))
    cosines = ops.sum(direction * target, axis=-1, keepdims=True)
    # The sine as a difference of vectors: 1 - cos² would leave nothing of a small angle.
    return (length(target - cosines * direction) / length(features))[:, 0]


@keras.saving.register_keras_serializable("keras_robust")
class SecondOrder(FixedCenterLoss):
    """Mean length of the gradient of FTC with respect to the features.

    Args:
        num_classes: number of classes L, >= 2; the centres are those of `max_mahalanobis_centers`.

    Fits `compile(loss=...)` of a model whose output is the feature `(B, d)`; labels are integers `(B,)`.
    Alone it does not tell a centre from its opposite, where its value is zero as well: add it to
    `FeatureToCenter`.

    Raises:
        InputError: `num_classes` is not as described.

    Source: MAT (ICLR 2021 submission), SO.

    >>> import numpy as np
    >>> round(float(SecondOrder(2)(np.array([0]), np.array([[0.0, 4.0]], "float32"))), 6)
    0.25
    """

    def __init__(
        self,
        num_classes: int,
        reduction: str = "sum_over_batch_size",
        name: str = "second_order",
        dtype: Any = None,
    ) -> None:
        super().__init__(num_classes, 1.0, reduction, name, dtype)

    def values(self, labels: Any, features: Any, centers: Any) -> Any:
        return second_order(labels, features, centers)
