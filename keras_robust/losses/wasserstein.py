"""The two sides of a Wasserstein game between a critic and an encoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def wasserstein_critic(prior_scores: Any, code_scores: Any) -> Any:
    """What the critic descends, D(code) - D(prior), one pair each, `(B,)` float32.

    Minus its mean over all 1-Lipschitz critics is at most the Wasserstein distance of the two.

    Args:
        prior_scores: `(B,)`, the critic's of draws from the prior.
        code_scores: `(B,)`, the critic's of codes.

    Source: Arjovsky et al. 2017, equation 2; ER-Classifier (ICCV 2021), algorithm 1.

    >>> import numpy as np
    >>> wasserstein_critic(np.array([3.0]), np.array([0.5])).numpy().tolist()
    [-2.5]
    """
    return ops.cast(code_scores, "float32") - ops.cast(prior_scores, "float32")


def wasserstein_generator(code_scores: Any) -> Any:
    """What the encoder descends, -D(code), `(B,)` float32: codes that the critic takes for the prior's.

    Args:
        code_scores: `(B,)`, the critic's of codes.

    Source: Arjovsky et al. 2017, theorem 3; ER-Classifier (ICCV 2021), algorithm 1.

    >>> import numpy as np
    >>> wasserstein_generator(np.array([0.5])).numpy().tolist()
    [-0.5]
    """
    return -ops.cast(code_scores, "float32")


@keras.saving.register_keras_serializable("keras_robust")
class WassersteinCritic(keras.losses.Loss):
    """Mean of D(code) - D(prior): `y_true` are the scores of the prior `(B,)`, `y_pred` those of codes.

    Source: Arjovsky et al. 2017, equation 2.

    >>> import numpy as np
    >>> float(WassersteinCritic()(np.array([3.0, 1.0]), np.array([0.5, 0.5])))
    -1.5
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str = "wasserstein_critic", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return wasserstein_critic(y_true, y_pred)


@keras.saving.register_keras_serializable("keras_robust")
class WassersteinGenerator(keras.losses.Loss):
    """Mean of -D(code): `y_pred` are the scores of codes `(B,)`; `y_true`, of that shape, is not used.

    Source: Arjovsky et al. 2017, theorem 3.

    >>> import numpy as np
    >>> float(WassersteinGenerator()(np.zeros(2), np.array([3.0, 1.0])))
    -2.0
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str = "wasserstein_generator", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return wasserstein_generator(y_pred)
