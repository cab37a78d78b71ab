"""Training without a defense: the baseline of every table."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.losses import cross_entropy


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("standard")
class Standard(Defense):
    """Cross-entropy on clean images.

    Args:
        classifier: built Keras model from images to logits.
        adversary: attack for the adversarial accuracy in evaluation, or None; training makes none.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    >>> import keras_robust as kr
    >>> defense = kr.defenses.Standard(kr.models.build("small_cnn"))
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    def __init__(self, classifier: keras.Model, adversary: Any = None, **options: Any) -> None:
        super().__init__(classifier, adversary, terms={"clean": 1.0}, **options)

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        return {"clean": cross_entropy(batch.labels, self.view(batch).logits)}
