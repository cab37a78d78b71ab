"""Cross-entropy of soft labels, and the smoothing that makes them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.errors import is_finite, require


def smoothed_labels(labels: Any, num_classes: int, smoothing: float = 0.5) -> Any:
    """Labels `(B,)` as distributions `(B, K)` float32: 1 - smoothing on the label, the rest shared equally.

    Args:
        labels: `(B,)` integers.
        num_classes: number of classes K, >= 2.
        smoothing: mass off the label, in [0, 1].

    Raises:
        InputError: smoothing or number of classes out of range.

    Source: Feature Scattering (Zhang & Wang 2019) and ATLD, both with 0.5.

    >>> import numpy as np
    >>> smoothed_labels(np.array([1]), 3).numpy().tolist()
    [[0.25, 0.5, 0.25]]
    """
    check_share("smoothing", smoothing)
    require(num_classes >= 2, f"Soft labels need 2 classes or more. Received: {num_classes}.")
    others = smoothing / (num_classes - 1)
    return others + (1.0 - smoothing - others) * ops.one_hot(labels, num_classes, dtype="float32")


def soft_cross_entropy(targets: Any, logits: Any) -> Any:
    """-sum_k target_k log softmax(logits)_k, `(B,)` float32.

    Args:
        targets: `(B, K)`, each a distribution.
        logits: `(B, K)`.

    >>> import numpy as np
    >>> round(float(soft_cross_entropy(np.array([[0.5, 0.5]], "float32"), np.zeros((1, 2), "float32"))[0]), 4)
    0.6931
    """
    return -ops.sum(targets * ops.log_softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class SoftCrossEntropy(keras.losses.Loss):
    """Mean cross-entropy of smoothed labels; `y_true` are integers `(B,)`, `y_pred` logits `(B, K)`.

    Args:
        smoothing: mass off the label, in [0, 1].

    Raises:
        InputError: smoothing outside of [0, 1].

    Source: Feature Scattering (Zhang & Wang 2019) and ATLD, both with 0.5.

    >>> import numpy as np
    >>> round(float(SoftCrossEntropy()(np.array([1]), np.zeros((1, 2), "float32"))), 4)
    0.6931
    """

    def __init__(
        self,
        smoothing: float = 0.5,
        reduction: str = "sum_over_batch_size",
        name: str = "soft_cross_entropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_share("smoothing", smoothing)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))  # (B, 1) is a habit of Keras' data sets
        return soft_cross_entropy(smoothed_labels(labels, y_pred.shape[-1], self.smoothing), y_pred)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smoothing": self.smoothing}


def check_share(name: str, value: Any, num_classes: int | None = None) -> None:
    """Refuse what is not a number in [0, 1], or would leave less than an equal share on the true class."""
    require(
        is_finite(value) and 0 <= value <= 1,
        f"{name} must be a number in [0, 1]. Received: {name}={value!r}.",
    )
    require(
        num_classes is None or value < 1 - 1 / num_classes,
        f"{name} must be less than 1 - 1/{num_classes}: with {num_classes} classes, labels with as much "
        f"off the true class no longer tell it. Received: {name}={value!r}.",
    )
