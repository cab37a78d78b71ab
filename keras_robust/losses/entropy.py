"""Entropy of a prediction: low where the classifier is sure, so that its boundary avoids the data."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def entropy(logits: Any) -> Any:
    """Entropy of softmax(logits) in nats, `(B,)` float32.

    Args:
        logits: `(B, K)`.

    >>> import numpy as np
    >>> round(float(entropy(np.zeros((1, 2), "float32"))[0]), 4)
    0.6931
    """
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return -ops.sum(ops.exp(log_p) * log_p, axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class ConditionalEntropy(keras.losses.Loss):
    """Mean entropy of the predictions `y_pred`; `y_true` is not looked at.

    `y_pred` are logits `(B, K)`, or `(logits, adversarial_logits)` for the sum of both entropies.

    Source: the clustering assumption, Grandvalet & Bengio 2004; ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> logits = np.zeros((1, 2), "float32")
    >>> round(float(ConditionalEntropy()(np.array([0]), logits)), 4)
    0.6931
    >>> round(float(ConditionalEntropy()(np.array([0]), (logits, logits))), 4)
    1.3863
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str = "conditional_entropy", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return sum(map(entropy, y_pred)) if isinstance(y_pred, (tuple, list)) else entropy(y_pred)
