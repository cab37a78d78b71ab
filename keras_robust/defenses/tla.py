"""TLA: triplet loss adversarial training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.directions import length
from keras_robust.errors import require_not_negative
from keras_robust.losses import cross_entropy, partners, triplet
from keras_robust.losses.feature_norm import flat_features
from keras_robust.models.latent import require_latent


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("tla")
class TLA(Defense):
    """CE(x', y) + triplet_weight · triplet + norm_weight · (‖z'‖ + ‖z_positive‖ + ‖z_negative‖).

    The triplet pulls the adversarial latent z' towards the clean one of another image of its class and away
    from the nearest clean one of another class, by angle: see `losses.triplet`. Partners come from the
    batch: under a distribution strategy, from each replica's part of it.

    Args:
        classifier: built `LatentClassifier`.
        adversary: attack that makes x'.
        triplet_weight: lambda_1 in the paper, >= 0.
        norm_weight: weight of the lengths of the latents, lambda_2 in the paper, >= 0.
        margin: of the triplet, >= 0.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: a classifier without latent, or an option that is not as described.

    Source: Mao et al., NeurIPS 2019, "Metric learning for adversarial robustness", equations 3 and 4.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=8 / 255, steps=7, step_size=2 / 255)
    >>> defense = kr.defenses.TLA(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_adversary = True
    coupled_terms = ("triplet", "norms")

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any,
        triplet_weight: float = 2.0,
        norm_weight: float = 0.001,
        margin: float = 0.03,
        **options: Any,
    ) -> None:
        terms = {"adversarial": 1.0, "triplet": triplet_weight, "norms": norm_weight}
        super().__init__(classifier, adversary, terms=terms, **options)
        require_latent("TLA", classifier)
        require_not_negative(margin=margin)
        self.margin = margin

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        labels, clean, adversarial = batch.labels, self.view(batch), self.view(batch, "adversarial")
        return {
            "adversarial": cross_entropy(labels, adversarial.logits),
            "triplet": triplet(labels, adversarial.latent, clean.latent, self.margin),
            "norms": _norms(labels, adversarial.latent, clean.latent),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "triplet_weight": self.terms["triplet"],
            "norm_weight": self.terms["norms"],
            "margin": self.margin,
        }


def _norms(labels: Any, anchors: Any, features: Any) -> Any:
    """‖z'‖ + ‖z_positive‖ + ‖z_negative‖ of each triplet, without those that do not exist, `(B,)`."""
    chosen = partners(labels, anchors, features)
    lengths = length(flat_features(features))[:, 0]
    negative = ops.where(chosen.exists, ops.take(lengths, chosen.negative), 0.0)
    return length(flat_features(anchors))[:, 0] + ops.take(lengths, chosen.positive) + negative
