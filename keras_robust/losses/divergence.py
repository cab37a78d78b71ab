"""Kullback-Leibler divergence between two predictions given as logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def kl_divergence(target_logits: Any, logits: Any) -> Any:
    """KL(softmax(target) || softmax(logits)) summed over the classes, `(B,)` float32.

    Args:
        target_logits: `(B, K)`, the distribution the expectation is taken over.
        logits: `(B, K)`.

    Source: TRADES, Zhang et al. 2019, equation 5 with the clean prediction as target.

    >>> import numpy as np
    >>> sure = np.array([[100.0, 0.0]], "float32")
    >>> round(float(kl_divergence(sure, np.zeros((1, 2), "float32"))[0]), 4)
    0.6931
    """
    target = ops.log_softmax(ops.cast(target_logits, "float32"), axis=-1)
    other = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return ops.sum(ops.exp(target) * (target - other), axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class KLDivergence(keras.losses.Loss):
    """Mean over the batch of KL(softmax(y_true) || softmax(y_pred)); both arguments are logits.

    >>> import numpy as np
    >>> float(KLDivergence()(np.zeros((1, 2), "float32"), np.zeros((1, 2), "float32")))
    0.0
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str = "kl_divergence", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return kl_divergence(y_true, y_pred)
