"""Adversarial training on cross-entropy, with or without the clean images."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.losses import cross_entropy


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("adversarial_training")
class AdversarialTraining(Defense):
    """clean_weight · CE(x, y) + adversarial_weight · CE(x', y).

    With the default weights it is the "ADV" of ADR (Bui et al. 2020, equation 4); with
    `clean_weight=0` the adversarial training of Madry et al. 2018 (equation 2.1).

    Args:
        classifier: built Keras model from images to logits.
        adversary: attack that makes x', usually `PGD`; in training not run with `adversarial_weight=0`.
        clean_weight: weight of the clean images' cross-entropy, >= 0.
        adversarial_weight: weight of the adversarial images' cross-entropy, >= 0.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: no adversary where one is needed, or a weight that is not >= 0.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=0.3, steps=10)
    >>> defense = kr.defenses.AdversarialTraining(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any,
        clean_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        **options: Any,
    ) -> None:
        terms = {"clean": clean_weight, "adversarial": adversarial_weight}
        super().__init__(classifier, adversary, terms=terms, **options)

    @property
    def needs_adversary(self) -> bool:  # type: ignore[override]
        return bool(self.terms["adversarial"])

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        seen = {name: self.view(batch, name) for name in self.active_terms}
        return {name: cross_entropy(batch.labels, view.logits) for name, view in seen.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "clean_weight": self.terms["clean"],
            "adversarial_weight": self.terms["adversarial"],
        }
