"""FTC: features point where the centre of their class is."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.losses.centers import FixedCenterLoss, center_of
from keras_robust.losses.cosine import cosine_distance


def feature_to_center(labels: Any, features: Any, centers: Any) -> Any:
    """1 - cos(features, centre of the label), `(B,)` float32 in [0, 2].

    Args:
        labels: `(B,)` integers.
        features: `(B, d)`.
        centers: `(L, d)`, of any length.

    Source: MAT (ICLR 2021 submission), FTC.

    >>> import numpy as np
    >>> feature_to_center(np.array([1]), np.array([[0.0, 5.0]]), np.eye(2)).numpy().tolist()
    [0.0]
    """
    return cosine_distance(features, center_of(labels, centers))


@keras.saving.register_keras_serializable("keras_robust")
class FeatureToCenter(FixedCenterLoss):
    """Mean cosine distance of features (`y_pred`) from the fixed centres of their labels (`y_true`).

    Args:
        num_classes: number of classes L, >= 2; the centres are those of `max_mahalanobis_centers`.

    Fits `compile(loss=...)` of a model whose output is the feature `(B, d)`; labels are integers `(B,)`.

    Raises:
        InputError: `num_classes` is not as described.

    Source: MAT (ICLR 2021 submission), FTC.

    >>> import numpy as np
    >>> float(FeatureToCenter(2)(np.array([1]), np.array([[-5.0, 0.0]], "float32")))
    0.0
    """

    def __init__(
        self,
        num_classes: int,
        reduction: str = "sum_over_batch_size",
        name: str = "feature_to_center",
        dtype: Any = None,
    ) -> None:
        super().__init__(num_classes, 1.0, reduction, name, dtype)

    def values(self, labels: Any, features: Any, centers: Any) -> Any:
        return feature_to_center(labels, features, centers)
