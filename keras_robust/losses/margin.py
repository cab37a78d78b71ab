"""Margin losses: how far the best other class stands above (or below) the true one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.errors import require, require_not_negative


def _true_and_best_other(labels: Any, logits: Any) -> tuple[Any, Any]:
    true = ops.one_hot(labels, logits.shape[-1], dtype="bool")
    lowest = ops.full_like(logits, float("-inf"))
    return (
        ops.max(ops.where(true, logits, lowest), axis=-1),
        ops.max(ops.where(true, lowest, logits), axis=-1),
    )


def _ranked(logits: Any, k: int) -> Any:
    classes = logits.shape[-1]
    require(classes >= k, f"This difference of logits ratio needs {k} classes or more. Received: {classes}.")
    return ops.top_k(logits, k=k)[0]


def margin(labels: Any, logits: Any) -> Any:
    """max_{j != y} z_j - z_y, `(B,)`: positive exactly where the example is misclassified.

    Args:
        labels: `(B,)` integers.
        logits: `(B, K)` float32.

    Source: Carlini & Wagner 2017, f6.

    >>> import numpy as np
    >>> margin(np.array([0]), np.array([[3.0, 1.0, 2.0]], "float32")).numpy().tolist()
    [-1.0]
    """
    true, other = _true_and_best_other(labels, logits)
    return other - true


def dlr(labels: Any, logits: Any) -> Any:
    """Difference of logits ratio, -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)), `(B,)`.

    Invariant to shift and scale of the logits.

    Args:
        labels: `(B,)` integers.
        logits: `(B, K)` float32, K >= 3.

    Source: Croce & Hein 2020, equation 6.

    >>> import numpy as np
    >>> dlr(np.array([0]), np.array([[3.0, 1.0, 2.0]], "float32")).numpy().tolist()
    [-0.5]
    """
    ranked = _ranked(logits, 3)
    return margin(labels, logits) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


def targeted_dlr(labels: Any, targets: Any, logits: Any) -> Any:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), `(B,)`.

    Args:
        labels: `(B,)` integers, the true classes.
        targets: `(B,)` integers, the wanted classes.
        logits: `(B, K)` float32, K >= 4.

    Source: Croce & Hein 2020, equation 7.

    >>> import numpy as np
    >>> logits = np.array([[4.0, 3.0, 2.0, 0.0]], "float32")
    >>> round(float(targeted_dlr(np.array([0]), np.array([1]), logits)[0]), 4)
    -0.3333
    """
    ranked = _ranked(logits, 4)
    spread = ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2
    true = ops.sum(ops.where(ops.one_hot(labels, logits.shape[-1], dtype="bool"), logits, 0.0), axis=-1)
    target = ops.sum(ops.where(ops.one_hot(targets, logits.shape[-1], dtype="bool"), logits, 0.0), axis=-1)
    return (target - true) / (spread + 1e-12)


@keras.saving.register_keras_serializable("keras_robust")
class Margin(keras.losses.Loss):
    """Hinge on the classification margin: max(max_{j != y} z_j - z_y + confidence, 0).

    Args:
        confidence: the margin (>= 0, in logits) by which the true class should stand above.

    Raises:
        InputError: another confidence.

    Source: Carlini & Wagner 2017, f6 with kappa.

    >>> import numpy as np
    >>> float(Margin(confidence=1.0)(np.array([0]), np.array([[3.0, 1.0]], "float32")))
    0.0
    """

    def __init__(
        self,
        confidence: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str = "margin",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        require_not_negative(confidence=confidence)
        self.confidence = confidence

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))  # (B, 1) is a habit of Keras' data sets
        return ops.maximum(margin(labels, y_pred) + self.confidence, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "confidence": self.confidence}
