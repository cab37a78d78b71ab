"""Cross-entropy of integer labels, one value per example."""

from __future__ import annotations

from typing import Any

from keras import ops


def cross_entropy(labels: Any, logits: Any) -> Any:
    """-log softmax(logits)[label], `(B,)` float32.

    Args:
        labels: `(B,)` integers.
        logits: `(B, K)`.

    >>> import numpy as np
    >>> round(float(cross_entropy(np.array([1]), np.zeros((1, 2), "float32"))[0]), 4)
    0.6931
    """
    return ops.sparse_categorical_crossentropy(labels, ops.cast(logits, "float32"), from_logits=True)
