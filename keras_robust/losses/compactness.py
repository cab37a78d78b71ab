"""Compact latents: near those of the clean image, near those of the class, away from other classes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.losses.class_pairs import check_alpha, pair_weights
from keras_robust.losses.feature_norm import distance, feature_norm, pairwise_distance


def local_compactness(
    latents: Any, adversarial_latents: Any, norm: int | str = 1, stop_gradient: bool = True
) -> Any:
    """‖z - z'‖ of each image's clean and adversarial latent, `(B,)` float32.

    Args:
        latents: `(B, ...)`, of the clean images.
        adversarial_latents: `(B, ...)`, of the adversarial ones.
        norm: 1 (mean over the features of |d|), 2 (sqrt of the mean of d²) or "inf" (max |d|).
        stop_gradient: hold the clean latent fixed, as the authors' code does; the paper lets both move.

    Raises:
        InputError: another norm.

    Source: ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> local_compactness(np.zeros((1, 2), "float32"), np.array([[1.0, -3.0]], "float32")).numpy().tolist()
    [2.0]
    """
    target = ops.stop_gradient(latents) if stop_gradient else latents
    return distance(adversarial_latents, target, norm)


def global_compactness(
    labels: Any,
    latents: Any,
    adversarial_latents: Any = None,
    alpha: float = 0.99,
    norm: int | str = 1,
    stop_gradient: bool = True,
) -> Any:
    """mean_i w_ij ‖z_i - z'_j‖ for each j, `(B,)` float32; its mean is that over all b² pairs.

    w is 1 within a class, a pair of an example with itself included, and (alpha - 1) / alpha, which is
    negative, between classes. The value has no lower bound.

    Args:
        labels: `(B,)` integers.
        latents: `(B, ...)`, of the clean images.
        adversarial_latents: `(B, ...)`, z' of the authors' code; None pairs the clean latents with each
            other, as the paper writes it.
        alpha: in (0, 1].
        norm: 1 (mean over the features of |d|), 2 (sqrt of the mean of d²) or "inf" (max |d|).
        stop_gradient: hold the clean latents of clean-adversarial pairs fixed, as the authors' code does.

    The pairs are those of the batch that is given: under a distribution strategy, of each replica's own.

    Raises:
        InputError: another norm, or an alpha that is not in (0, 1].

    Source: ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> apart = np.array([[0.0], [1.0]], "float32")
    >>> global_compactness(np.array([0, 0]), apart).numpy().tolist()
    [0.5, 0.5]
    """
    if adversarial_latents is None:
        distances = pairwise_distance(latents, latents, norm)
    else:
        rows = ops.stop_gradient(latents) if stop_gradient else latents
        distances = pairwise_distance(rows, adversarial_latents, norm)
    return ops.mean(pair_weights(labels, alpha) * distances, axis=0)


@keras.saving.register_keras_serializable("keras_robust")
class LocalCompactness(keras.losses.Loss):
    """Mean distance of adversarial latents (`y_pred`) from their clean ones (`y_true`), both `(B, ...)`.

    Args:
        norm: 1 (mean over the features of |d|), 2 (sqrt of the mean of d²) or "inf" (max |d|).
        stop_gradient: hold the clean latent fixed.

    Raises:
        InputError: another norm.

    Source: ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> float(LocalCompactness()(np.zeros((1, 2), "float32"), np.array([[1.0, -3.0]], "float32")))
    2.0
    """

    def __init__(
        self,
        norm: int | str = 1,
        stop_gradient: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "local_compactness",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        feature_norm(norm)
        self.norm = norm
        self.stop_gradient = stop_gradient

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return local_compactness(y_true, y_pred, self.norm, self.stop_gradient)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "norm": self.norm, "stop_gradient": self.stop_gradient}


@keras.saving.register_keras_serializable("keras_robust")
class GlobalCompactness(keras.losses.Loss):
    """Mean over all pairs of a batch of w ‖z_i - z_j‖: classes drawn together and pushed apart.

    `y_true` are the labels `(B,)`; `y_pred` the latents `(B, ...)`, or `(latents, adversarial_latents)`
    for pairs of a clean and an adversarial one.

    Args:
        alpha: in (0, 1]; pairs of one class have weight 1, others (alpha - 1) / alpha.
        norm: 1 (mean over the features of |d|), 2 (sqrt of the mean of d²) or "inf" (max |d|).
        stop_gradient: hold the clean latents of clean-adversarial pairs fixed.

    The pairs are those of the batch that is given: under a distribution strategy, of each replica's own.

    Raises:
        InputError: another alpha or norm.

    Source: ADR, Bui et al. 2020, equation 7.

    >>> import numpy as np
    >>> latents = np.array([[0.0], [1.0]], "float32")
    >>> float(GlobalCompactness()(np.array([0, 0]), latents))
    0.5
    >>> float(GlobalCompactness(alpha=0.5)(np.array([0, 1]), (latents, latents)))
    -0.5
    """

    def __init__(
        self,
        alpha: float = 0.99,
        norm: int | str = 1,
        stop_gradient: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "global_compactness",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_alpha(alpha)
        feature_norm(norm)
        self.alpha = alpha
        self.norm = norm
        self.stop_gradient = stop_gradient

    def call(self, y_true: Any, y_pred: Any) -> Any:
        latents, adversarial = y_pred if isinstance(y_pred, (tuple, list)) else (y_pred, None)
        return global_compactness(y_true, latents, adversarial, self.alpha, self.norm, self.stop_gradient)

    def get_config(self) -> dict[str, Any]:
        options = {"alpha": self.alpha, "norm": self.norm, "stop_gradient": self.stop_gradient}
        return {**super().get_config(), **options}
