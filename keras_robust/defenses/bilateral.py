"""Bilateral adversarial training: perturb the image and the label."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.errors import require_above_zero
from keras_robust.losses import adversarial_labels, soft_cross_entropy
from keras_robust.losses.soft_cross_entropy import check_share


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("bilateral")
class Bilateral(Defense):
    """Cross-entropy of adversarial labels y' on adversarial images x'.

    x' goes one step towards the most confusing class: give
    `PGD(steps=1, step_size=eps, loss="most_confusing", ...)`. y' is `losses.adversarial_labels`, the mass
    off the true class going where the loss at x' rises most.

    Args:
        classifier: built Keras model from images to logits.
        adversary: attack that makes x'.
        label_mass: mass of y' off the true class, eps_y in the paper, in [0, 1 - 1/K) with K classes.
        gamma: what the most confusing class gets beside the shares of the others, > 0.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: an option that is not as described.

    Source: Wang & Zhang, ICCV 2019, section 3.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=8 / 255, steps=1, step_size=8 / 255, loss="most_confusing")
    >>> defense = kr.defenses.Bilateral(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_adversary = True

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any,
        label_mass: float = 0.5,
        gamma: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(classifier, adversary, terms={"adversarial": 1.0}, **options)
        check_share("label_mass", label_mass, classifier.output_shape[-1])
        require_above_zero(gamma=gamma)
        self.label_mass = label_mass
        self.gamma = gamma

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """What softened labels flatten the margin shows."""
        return [{"name": "cross_entropy"}, {"name": "margin"}]

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        logits = self.view(batch, "adversarial").logits
        targets = adversarial_labels(batch.labels, logits, self.label_mass, self.gamma)
        return {"adversarial": soft_cross_entropy(targets, logits)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_mass": self.label_mass, "gamma": self.gamma}
