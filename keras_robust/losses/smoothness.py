"""Smooth predictions: the same for the adversarial image as for the clean one, or for its class."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.losses.class_pairs import pair_weights
from keras_robust.losses.divergence import kl_divergence


def smoothness(logits: Any, adversarial_logits: Any, stop_gradient: bool = True) -> Any:
    """KL(h(x) || h(x')), `(B,)` float32; logits `(B, K)`.

    Args:
        logits: `(B, K)`, of the clean images.
        adversarial_logits: `(B, K)`, of the adversarial (or virtual adversarial) ones.
        stop_gradient: hold the clean prediction fixed, as virtual adversarial training and ADR's code do.

    Source: Miyato et al. 2018, equation 5; ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> same = np.array([[1.0, 2.0]], "float32")
    >>> smoothness(same, same).numpy().tolist()
    [0.0]
    """
    return kl_divergence(_target(logits, stop_gradient), adversarial_logits)


def global_smoothness(
    labels: Any, logits: Any, adversarial_logits: Any, alpha: float = 0.99, stop_gradient: bool = True
) -> Any:
    """mean_i w_ij KL(h(x_i) || h(x'_j)) for each j, `(B,)` float32, with the weights of global compactness.

    Args:
        labels: `(B,)` integers.
        logits: `(B, K)`, of the clean images.
        adversarial_logits: `(B, K)`, of the adversarial ones.
        alpha: in (0, 1]; pairs of one class have weight 1, others (alpha - 1) / alpha.
        stop_gradient: hold the clean predictions fixed.

    The pairs are those of the batch that is given: under a distribution strategy, of each replica's own.

    Raises:
        InputError: an alpha that is not in (0, 1].

    Source: an option of ADR's code, absent from its paper.

    >>> import numpy as np
    >>> alike = np.zeros((3, 2), "float32")
    >>> global_smoothness(np.array([0, 1, 0]), alike, alike).numpy().tolist()
    [0.0, 0.0, 0.0]
    """
    target = ops.log_softmax(ops.cast(_target(logits, stop_gradient), "float32"), axis=-1)
    other = ops.log_softmax(ops.cast(adversarial_logits, "float32"), axis=-1)
    p = ops.exp(target)
    divergences = ops.sum(p * target, axis=-1, keepdims=True) - ops.matmul(p, ops.transpose(other))
    return ops.mean(pair_weights(labels, alpha) * divergences, axis=0)


def _target(logits: Any, stop_gradient: bool) -> Any:
    return ops.stop_gradient(logits) if stop_gradient else logits


@keras.saving.register_keras_serializable("keras_robust")
class Smoothness(keras.losses.Loss):
    """Mean KL(h(x) || h(x')) of clean (`y_true`) and adversarial logits (`y_pred`), both `(B, K)`.

    Args:
        stop_gradient: hold the clean prediction fixed.

    Source: Miyato et al. 2018, equation 5; ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> float(Smoothness()(np.ones((1, 2), "float32"), np.zeros((1, 2), "float32")))
    0.0
    """

    def __init__(
        self,
        stop_gradient: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "smoothness",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.stop_gradient = stop_gradient

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return smoothness(y_true, y_pred, self.stop_gradient)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stop_gradient": self.stop_gradient}
