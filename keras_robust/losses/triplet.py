"""Triplets: an adversarial feature nearer to its class than to another one, by angle."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_robust.directions import unit
from keras_robust.errors import require_not_negative
from keras_robust.losses.cosine import cosine_distance
from keras_robust.losses.feature_norm import flat_features


class Partners(NamedTuple):
    """What completes each anchor to a triplet: indices into the batch `(B,)`, and whether it exists."""

    positive: Any
    negative: Any
    exists: Any


def partners(labels: Any, anchors: Any, features: Any) -> Partners:
    """For each anchor the next example of its class, and the nearest feature of another class.

    "Next" is in the order of the batch, from its end back to its start; batches are shuffled, so it is a
    random one. An example that is alone in its class is its own positive. Where the batch holds one class
    only there is no triplet.

    Args:
        labels: `(B,)` integers, of both.
        anchors: `(B, ...)`, of adversarial images.
        features: `(B, ...)`, of the clean ones.

    >>> import numpy as np
    >>> found = partners(np.array([0, 1, 0]), np.eye(3, dtype="float32"), np.eye(3, dtype="float32"))
    >>> found.positive.numpy().tolist(), found.exists.numpy().tolist()
    ([2, 1, 0], [True, True, True])
    """
    labels = ops.reshape(labels, (-1, 1))
    alike = labels == ops.transpose(labels)
    count = ops.maximum(ops.shape(labels)[0], 1)  # a replica of a distribution strategy can get no example
    order = ops.arange(ops.shape(labels)[0])
    steps_ahead = ops.mod(ops.expand_dims(order, 0) - ops.expand_dims(order, 1) - 1, count)
    positive = _lowest(ops.where(alike, ops.cast(steps_ahead, "float32"), float("inf")))
    cosines = ops.matmul(unit(flat_features(anchors)), ops.transpose(unit(flat_features(features))))
    negative = _lowest(ops.where(alike, float("inf"), -cosines))
    return Partners(positive, negative, ops.logical_not(ops.all(alike, axis=1)))


def _lowest(values: Any) -> Any:
    """Where each row of `(B, B)` is lowest, `(B,)`; of no rows, none."""
    return ops.argmin(ops.pad(values, ((0, 0), (0, 1)), constant_values=float("inf")), axis=1)


def triplet(labels: Any, anchors: Any, features: Any, margin: float = 0.03) -> Any:
    """max(0, CD(z', z_positive) - CD(z', z_negative) + margin), `(B,)` float32, CD the cosine distance.

    Zero where there is no triplet. The triplets are those of the batch that is given: under a distribution
    strategy, of each replica's own.

    Args:
        labels: `(B,)` integers, of both.
        anchors: `(B, ...)`, of adversarial images.
        features: `(B, ...)`, of the clean ones; see `partners`.
        margin: >= 0.

    Raises:
        InputError: another margin.

    Source: TLA, Mao et al. 2019, equation 3.

    >>> import numpy as np
    >>> features = np.eye(2, dtype="float32")
    >>> triplet(np.array([0, 1]), features, features).numpy().tolist()
    [0.0, 0.0]
    """
    require_not_negative(margin=margin)
    chosen = partners(labels, anchors, features)
    near = cosine_distance(anchors, ops.take(features, chosen.positive, axis=0))
    far = cosine_distance(anchors, ops.take(features, chosen.negative, axis=0))
    return ops.where(chosen.exists, ops.relu(near - far + margin), 0.0)


@keras.saving.register_keras_serializable("keras_robust")
class Triplet(keras.losses.Loss):
    """Mean triplet loss of a batch.

    `y_true` are the labels `(B,)`, `y_pred` is `(features, adversarial_features)`, each `(B, ...)`.

    Args:
        margin: >= 0.

    The triplets are those of the batch that is given: under a distribution strategy, of each replica's own.

    Raises:
        InputError: another margin.

    Source: TLA, Mao et al. 2019, equation 3.

    >>> import numpy as np
    >>> features = np.eye(2, dtype="float32")
    >>> float(Triplet()(np.array([0, 1]), (features, features)))
    0.0
    >>> round(float(Triplet()(np.array([0, 1]), (features, features[::-1]))), 2)
    1.03
    """

    def __init__(
        self,
        margin: float = 0.03,
        reduction: str = "sum_over_batch_size",
        name: str = "triplet",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        require_not_negative(margin=margin)
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> Any:
        features, adversarial = y_pred
        return triplet(ops.reshape(ops.cast(y_true, "int32"), (-1,)), adversarial, features, self.margin)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}
