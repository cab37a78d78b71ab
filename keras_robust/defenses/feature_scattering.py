"""Feature Scattering: adversarial images that scatter a batch, whatever their labels."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.losses import smoothed_labels, soft_cross_entropy
from keras_robust.losses.soft_cross_entropy import check_share


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("feature_scattering")
class FeatureScattering(Defense):
    """Cross-entropy of smoothed labels on x', which together move furthest from the clean batch.

    x' climbs the optimal transport distance of the two batches of logits in one step: give
    `PGD(steps=1, step_size=eps, loss="transport", ...)`. Its start must be random, as it is by default: at
    the clean batch the distance has no gradient. Under a distribution strategy the batches are each
    replica's own.

    Args:
        classifier: built Keras model from images to logits.
        adversary: attack that makes x'.
        smoothing: mass of the labels off the true class, in [0, 1 - 1/K) with K classes.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: an option that is not as described.

    Source: Zhang & Wang, NeurIPS 2019, algorithm 1; smoothing as in the authors' code.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=8 / 255, steps=1, step_size=8 / 255, loss="transport")
    >>> defense = kr.defenses.FeatureScattering(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_adversary = True

    def __init__(
        self, classifier: keras.Model, adversary: Any, smoothing: float = 0.5, **options: Any
    ) -> None:
        super().__init__(classifier, adversary, terms={"adversarial": 1.0}, **options)
        check_share("smoothing", smoothing, classifier.output_shape[-1])
        self.smoothing = smoothing

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """What smoothed labels flatten the margin shows."""
        return [{"name": "cross_entropy"}, {"name": "margin"}]

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        logits = self.view(batch, "adversarial").logits
        targets = smoothed_labels(batch.labels, logits.shape[-1], self.smoothing)
        return {"adversarial": soft_cross_entropy(targets, logits)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smoothing": self.smoothing}
