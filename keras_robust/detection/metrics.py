"""How well a detector and the classifier behind it do together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_robust.errors import require


@dataclass(frozen=True)
class DetectionMetrics:
    """Shares in percent, of N adversarial and M other inputs.

    Attributes:
        acc_adv: adversarial inputs that are detected, n_adv / N.
        acc_nadv: other inputs that are let through, m / M.
        acc_cla: adversarial inputs that are classified rightly, of those let through, n_cla / (N - n_adv);
            None if none was.
        acc_com: adversarial inputs that are detected or classified rightly, (n_adv + n_cla) / N.

    Source: ER-Classifier (ICCV 2021), section 4.4.
    """

    acc_adv: float
    acc_nadv: float
    acc_cla: float | None
    acc_com: float


def detection_metrics(detected: np.ndarray, flagged: np.ndarray, right: np.ndarray) -> DetectionMetrics:
    """Count the decisions on adversarial and on other inputs.

    Args:
        detected: `(N,)` bool: which adversarial inputs were called adversarial, N >= 1.
        flagged: `(M,)` bool: which natural and noisy inputs were, M >= 1.
        right: `(N,)` bool: which adversarial inputs the classifier, asked all the same, gets right.

    Raises:
        InputError: no inputs of a kind, or a different number of `detected` and `right`.

    >>> detected, right = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    >>> found = detection_metrics(detected, np.array([0, 1], bool), right)
    >>> found.acc_adv, found.acc_nadv, found.acc_cla, found.acc_com
    (50.0, 50.0, 50.0, 75.0)
    """
    detected, flagged, right = (np.asarray(one, bool) for one in (detected, flagged, right))
    require(
        len(detected) > 0 and len(flagged) > 0 and detected.shape == right.shape,
        "Metrics need adversarial inputs, each with whether it is classified rightly, and other inputs. "
        f"Received: {detected.shape}, {right.shape} and {flagged.shape}.",
    )
    passed = ~detected
    return DetectionMetrics(
        acc_adv=_share(detected),
        acc_nadv=_share(~flagged),
        acc_cla=_share(right[passed]) if passed.any() else None,
        acc_com=_share(detected | right),
    )


def _share(hits: np.ndarray) -> float:
    return 100.0 * int(hits.sum()) / len(hits)
