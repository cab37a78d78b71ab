"""Adversarial logits near the clean ones, weighed against the cross-entropy by their gradients."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def logit_matching(logits: Any, adversarial_logits: Any) -> Any:
    """Mean over the classes of (z' - z)², `(B,)` float32; both `(B, K)`.

    Source: the authors' code of ATLD.

    >>> import numpy as np
    >>> logit_matching(np.zeros((1, 2)), np.array([[1.0, 3.0]])).numpy().tolist()
    [5.0]
    """
    difference = ops.cast(adversarial_logits, "float32") - ops.cast(logits, "float32")
    return ops.mean(ops.square(difference), axis=-1)


def gradient_ratio(gradient: Any, other: Any, limit: float) -> Any:
    """max(gradient) / max(other) within [0, limit], a constant: what to weigh the other loss with.

    The maxima are signed and over all entries. Where the other loss is flat the ratio is 0: there is
    nothing to weigh. Without a limit it grows without bound as that loss comes near its minimum, and
    training diverges.

    Args:
        gradient, other: gradients of two losses with respect to one tensor.
        limit: largest ratio, > 0.

    Source: the authors' code of ATLD, which has no limit.

    >>> import numpy as np
    >>> float(gradient_ratio(np.array([6.0, -9.0]), np.array([2.0, 1.0]), limit=10.0))
    3.0
    """
    ratio = ops.divide_no_nan(ops.max(gradient), ops.max(other))
    return ops.stop_gradient(ops.clip(ratio, 0.0, limit))


@keras.saving.register_keras_serializable("keras_robust")
class LogitMatching(keras.losses.Loss):
    """Mean squared difference of clean (`y_true`) and adversarial logits (`y_pred`), both `(B, K)`.

    Source: the authors' code of ATLD.

    >>> import numpy as np
    >>> float(LogitMatching()(np.zeros((1, 2), "float32"), np.array([[1.0, 3.0]], "float32")))
    5.0
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str = "logit_matching", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return logit_matching(y_true, y_pred)
