"""MMC: features are where the centre of their class is."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.losses.centers import FixedCenterLoss, center_of


def max_mahalanobis_center(labels: Any, features: Any, centers: Any) -> Any:
    """½ ‖features - centre of the label‖², `(B,)` float32.

    Args:
        labels: `(B,)` integers.
        features: `(B, d)`.
        centers: `(L, d)`.

    Source: Pang et al., ICLR 2020 (MMC), equation 2; the authors' code leaves out the ½.

    >>> import numpy as np
    >>> max_mahalanobis_center(np.array([0]), np.array([[1.0, 2.0]]), np.eye(2)).numpy().tolist()
    [2.0]
    """
    away = ops.cast(features, "float32") - center_of(labels, centers)
    return 0.5 * ops.sum(ops.square(away), axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class MaxMahalanobisCenter(FixedCenterLoss):
    """Mean of half the squared distance of features from the fixed centres of their labels.

    Args:
        num_classes: number of classes L, >= 2; the centres are those of `max_mahalanobis_centers`.
        scale: length of the centres, > 0; 10 in the authors' code.

    Fits `compile(loss=...)` of a model whose output is the feature `(B, d)`; labels are integers `(B,)`.

    Raises:
        InputError: an option is not as described.

    Source: Pang et al., ICLR 2020 (MMC), equation 2.

    >>> import numpy as np
    >>> float(MaxMahalanobisCenter(2, scale=3.0)(np.array([0]), np.array([[1.0, 0.0]], "float32")))
    2.0
    """

    def __init__(
        self,
        num_classes: int,
        scale: float = 10.0,
        reduction: str = "sum_over_batch_size",
        name: str = "max_mahalanobis_center",
        dtype: Any = None,
    ) -> None:
        super().__init__(num_classes, scale, reduction, name, dtype)

    def values(self, labels: Any, features: Any, centers: Any) -> Any:
        return max_mahalanobis_center(labels, features, centers)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}
