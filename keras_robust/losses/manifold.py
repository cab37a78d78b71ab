"""Jensen-Shannon divergence of clean and adversarial latents, bounded by a discriminator."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.errors import require_choice

FORMS = {"gan": 0.0, "js": float(np.log(2.0))}  # what each adds to the log-probability in an expectation


def manifold_bound(clean_scores: Any, adversarial_scores: Any, form: str = "js") -> Any:
    """A lower bound of the divergence, one pair of examples each, `(B,)` float32; its mean is the bound.

    With D = sigmoid(score):

    - "gan": log D(z) + log(1 - D(z')), whose largest mean over all D is 2 JSD - log 4;
    - "js": g(score) - f*(g(score')) with g(v) = log 2 - log(1 + exp(-v)) and f*(t) = -log(2 - exp(t)), whose
      largest mean is 2 JSD. It is the "gan" form plus log 4.

    Args:
        clean_scores: `(B,)`, what the discriminator gives for clean latents: the logit of P(clean).
        adversarial_scores: `(B,)`, the same for adversarial ones.
        form: "js" or "gan". The pair printed in ATLD's paper mixes the two and bounds neither.

    Raises:
        InputError: another form.

    Source: Nowozin et al. 2016 (f-GAN), table 6; ATLD (ICLR 2021 submission), section 3.2.

    >>> import numpy as np
    >>> manifold_bound(np.zeros(1, "float32"), np.zeros(1, "float32")).numpy().tolist()
    [0.0]
    """
    check_form(form)
    scores = ops.cast(clean_scores, "float32"), ops.cast(adversarial_scores, "float32")
    return ops.log_sigmoid(scores[0]) + ops.log_sigmoid(-scores[1]) + 2.0 * FORMS[form]


def check_form(form: str) -> None:
    """Refuse another form than those of `manifold_bound`."""
    require_choice("form of the manifold loss", form, FORMS)


@keras.saving.register_keras_serializable("keras_robust")
class ManifoldLoss(keras.losses.Loss):
    """What a discriminator descends: minus the bound of the divergence.

    `y_true` are the scores of clean latents, `y_pred` those of adversarial ones, `(B,)`, each the logit of
    P(clean). The least mean over all discriminators is -2 JSD ("js") or log 4 - 2 JSD ("gan").

    Args:
        form: "js" or "gan".

    Raises:
        InputError: another form.

    Source: Nowozin et al. 2016 (f-GAN), table 6; ATLD (ICLR 2021 submission), section 3.2.

    >>> import numpy as np
    >>> float(ManifoldLoss("js")(np.zeros(3, "float32"), np.zeros(3, "float32")))
    0.0
    """

    def __init__(
        self,
        form: str = "js",
        reduction: str = "sum_over_batch_size",
        name: str = "manifold_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_form(form)
        self.form = form

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return -manifold_bound(y_true, y_pred, self.form)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "form": self.form}
