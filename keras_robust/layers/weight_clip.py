"""Keeps weights in a box, for a critic that must not grow steep."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import require_above_zero


@keras.saving.register_keras_serializable("keras_robust")
class WeightClip(keras.constraints.Constraint):
    """Clips every weight to [-limit, limit].

    Args:
        limit: > 0.

    Raises:
        InputError: another limit.

    Source: Arjovsky et al. 2017 (WGAN), algorithm 1.

    >>> import numpy as np
    >>> np.asarray(WeightClip(0.5)(np.array([-2.0, 0.25], "float32"))).tolist()
    [-0.5, 0.25]
    """

    def __init__(self, limit: float = 0.01) -> None:
        require_above_zero(limit=limit)
        self.limit = limit

    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(w, -self.limit, self.limit)

    def get_config(self) -> dict[str, Any]:
        return {"limit": self.limit}
