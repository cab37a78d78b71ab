"""MAT: features on fixed centres, by their angles."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.layers import CosineCenters
from keras_robust.losses import cosine_distance, feature_to_center, second_order


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("mat")
class MAT(Defense):
    """FTC + alpha · SO + beta · BIBO.

    With phi, phi' the features of a clean image and of its adversarial one, mu_y the fixed centre of the
    label, and CD the cosine distance:

    - feature to center: FTC = CD(phi, mu_y);
    - second order: SO = ‖∂FTC / ∂phi‖₂;
    - BIBO, bounded input bounded output: CD(phi, phi'), the gradient going through both.

    x' climbs CD(phi, phi'): give `PGD(loss="cosine_distance", ...)` as adversary. Its start must be random,
    as it is by default: at x' = x the distance has no gradient.

    Args:
        classifier: `LatentClassifier` whose head is a `CosineCenters` layer, the paper's logit
            transformation: `kr.models.build(..., head={"name": "cosine_centers"})`.
        adversary: attack that makes x'; not needed, and in training not run, with `beta=0`.
        alpha: weight of SO, >= 0. The paper does not state it. SO falls as features grow longer, which
            masks gradients and gives no robustness (the paper's Table 4): see `adaptive_objectives`.
        beta: weight of BIBO, >= 0. The paper does not state it.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: another head, no adversary with `beta > 0`, or a weight that is not >= 0.

    Source: "MAT", ICLR 2021 submission: sections on FTC, SO and BIBO, and the adaptive attack.

    >>> import keras_robust as kr
    >>> classifier = kr.models.build("small_cnn", head={"name": "cosine_centers"})
    >>> adversary = kr.attacks.PGD(eps=0.15, steps=10, loss="cosine_distance")
    >>> defense = kr.defenses.MAT(classifier, adversary, alpha=1.0, beta=6.0)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_head = CosineCenters

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        **options: Any,
    ) -> None:
        terms = {"feature_to_center": 1.0, "second_order": alpha, "bibo": beta}
        super().__init__(classifier, adversary, terms=terms, **options)

    @property
    def needs_adversary(self) -> bool:  # type: ignore[override]
        return bool(self.terms["bibo"])

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """The whole loss; and cross-entropy and margin of the cosines, which long features cannot hide."""
        loss = {
            "name": "weighted",
            "objectives": [_CLIMBED[term] for term in self.active_terms],
            "weights": [self.terms[term] for term in self.active_terms],
        }
        return [loss, *({"name": "on_cosines", "objective": name} for name in ("cross_entropy", "margin"))]

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        centers = self.classifier.head.layers[-1].centers
        features = self.view(batch).latent
        terms = {
            "feature_to_center": lambda: feature_to_center(batch.labels, features, centers),
            "second_order": lambda: second_order(batch.labels, features, centers),
            "bibo": lambda: cosine_distance(features, self.view(batch, "adversarial").latent),
        }
        return {name: terms[name]() for name in self.active_terms}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.terms["second_order"], "beta": self.terms["bibo"]}


# What climbs each term.
_CLIMBED = {
    "feature_to_center": "feature_to_center",
    "second_order": "second_order",
    "bibo": "cosine_distance",
}
