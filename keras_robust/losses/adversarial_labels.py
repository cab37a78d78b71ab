"""The label adversary: soft labels that move towards what the classifier believes least."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_robust.errors import require_above_zero
from keras_robust.losses.soft_cross_entropy import check_share


def adversarial_labels(labels: Any, logits: Any, mass: float = 0.5, gamma: float = 0.01) -> Any:
    """Labels `(B,)` as distributions `(B, K)` float32 that raise the cross-entropy of the logits.

    1 - mass stays on the label. The rest is shared by the other classes in proportion to v_k - min(v) +
    gamma, where v = -log softmax(logits) is the gradient of the cross-entropy with respect to the label:
    the most confusing class gets least. The reverse, which descriptions of the method also have, would not be
    an adversary: it lowers the loss. No gradient passes.

    Args:
        labels: `(B,)` integers.
        logits: `(B, K)`, K >= 2.
        mass: off the label, in [0, 1].
        gamma: > 0; as it grows the labels become `smoothed_labels`.

    Raises:
        InputError: mass or gamma out of range.

    Source: Bilateral adversarial training, Wang & Zhang 2019, section 3.3.

    >>> import numpy as np
    >>> found = adversarial_labels(np.array([0]), np.array([[5.0, 3.0, 1.0]], "float32"))
    >>> found.numpy().round(3).tolist()[0][1] < found.numpy().round(3).tolist()[0][2]
    True
    """
    num_classes = logits.shape[-1]
    check_share("mass", mass)
    require_above_zero(gamma=gamma)
    own = ops.one_hot(labels, num_classes, dtype="float32")
    v = -ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    least = ops.min(ops.where(own > 0, float("inf"), v), axis=-1, keepdims=True)
    shares = (1.0 - own) * (v - least + gamma)
    shares = shares / ops.sum(shares, axis=-1, keepdims=True)
    return ops.stop_gradient((1.0 - mass) * own + mass * shares)
