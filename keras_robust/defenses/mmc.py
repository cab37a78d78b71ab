"""MMC: features at fixed centres, by their distances."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.layers import DistanceCenters
from keras_robust.losses import max_mahalanobis_center


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("mmc")
class MMC(Defense):
    """clean_weight · ½‖phi - mu_y‖² + adversarial_weight · ½‖phi' - mu_y‖².

    phi, phi' are the features of a clean image and of its adversarial one, mu_y the fixed centre of the
    label. The default is the adversarial training of the authors' code, on adversarial images only, whose
    adversary climbs the cross-entropy of the logits; `clean_weight=1, adversarial_weight=0` is MMC itself.

    Args:
        classifier: `LatentClassifier` whose head is a `DistanceCenters` layer:
            `kr.models.build(..., head={"name": "distance_centers", "scale": 10.0})`.
        adversary: attack that makes x'; not needed, and in training not run, with `adversarial_weight=0`.
        clean_weight: weight of the clean images' loss, >= 0.
        adversarial_weight: weight of the adversarial images' loss, >= 0.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: another head, no adversary where one is needed, or a weight that is not >= 0.

    Source: Pang et al., ICLR 2020, equation 2 and section 4 (adversarial training).

    >>> import keras_robust as kr
    >>> classifier = kr.models.build("small_cnn", head={"name": "distance_centers"})
    >>> defense = kr.defenses.MMC(classifier, kr.attacks.PGD(eps=0.15, steps=10))
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_head = DistanceCenters

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any = None,
        clean_weight: float = 0.0,
        adversarial_weight: float = 1.0,
        **options: Any,
    ) -> None:
        terms = {"clean": clean_weight, "adversarial": adversarial_weight}
        super().__init__(classifier, adversary, terms=terms, **options)

    @property
    def needs_adversary(self) -> bool:  # type: ignore[override]
        return bool(self.terms["adversarial"])

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """The loss, which finds more on MMC than the logits do; and their cross-entropy and margin."""
        head = self.classifier.head.layers[-1]
        loss = {"name": "max_mahalanobis_center", "scale": head.scale}
        return [loss, {"name": "cross_entropy"}, {"name": "margin"}]

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        head = self.classifier.head.layers[-1]
        centers = head.scale * head.centers
        return {
            which: max_mahalanobis_center(batch.labels, self.view(batch, which).latent, centers)
            for which in self.active_terms
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "clean_weight": self.terms["clean"],
            "adversarial_weight": self.terms["adversarial"],
        }
