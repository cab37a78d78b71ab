"""Divergence of a diagonal normal distribution from the standard one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def normal_divergence(mean: Any, log_variance: Any) -> Any:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)), summed over the features, `(B,)` float32.

    Args:
        mean, log_variance: `(B, D)`.

    Source: Kingma & Welling 2014, appendix B.

    >>> import numpy as np
    >>> normal_divergence(np.ones((1, 2)), np.zeros((1, 2))).numpy().tolist()
    [1.0]
    """
    mean, log_variance = ops.cast(mean, "float32"), ops.cast(log_variance, "float32")
    return 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance, axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class NormalDivergence(keras.losses.Loss):
    """Mean divergence from N(0, I): `y_true` are the means `(B, D)`, `y_pred` the log-variances.

    Source: Kingma & Welling 2014, appendix B.

    >>> import numpy as np
    >>> float(NormalDivergence()(np.ones((1, 2), "float32"), np.zeros((1, 2), "float32")))
    1.0
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str = "normal_divergence", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return normal_divergence(y_true, y_pred)
