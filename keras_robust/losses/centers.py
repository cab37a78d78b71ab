"""What losses on fixed class centres share."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.errors import require
from keras_robust.layers import max_mahalanobis_centers
from keras_robust.layers.centers import check_num_classes, check_scale


def center_of(labels: Any, centers: Any) -> Any:
    """The row of `centers` `(L, d)` for each of the `labels` `(B,)`, float32."""
    return ops.take(ops.cast(ops.convert_to_tensor(centers), "float32"), labels, axis=0)


class FixedCenterLoss(keras.losses.Loss):
    """Base of the losses of integer labels `(B,)` and features `(B, d)` on fixed centres.

    Args:
        num_classes: number of centres, >= 2. They are those of `max_mahalanobis_centers` for the `d` that
            the features turn out to have.
        scale: their length, > 0.
    """

    def __init__(self, num_classes: int, scale: float, reduction: str, name: str, dtype: Any) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_num_classes(num_classes)
        check_scale(scale)
        self.num_classes = num_classes
        self.scale = scale

    def call(self, y_true: Any, y_pred: Any) -> Any:
        _check_shapes(y_true.shape, y_pred.shape)
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        centers = max_mahalanobis_centers(self.num_classes, y_pred.shape[-1], self.scale)
        return self.values(labels, y_pred, centers)

    def values(self, labels: Any, features: Any, centers: Any) -> Any:
        """One value per example, `(B,)`."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def _check_shapes(labels: tuple[int | None, ...], features: tuple[int | None, ...]) -> None:
    """Refuse what is not labels `(B,)`, or `(B, 1)` as Keras' data sets have them, and features `(B, d)`."""
    require(
        len(labels) == 1 or (len(labels) == 2 and labels[1] == 1),
        f"Labels must be integers (B,). Received: shape {tuple(labels)}.",
    )
    require(len(features) == 2, f"Features must be (B, d). Received: shape {tuple(features)}.")
