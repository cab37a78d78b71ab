"""TRADES: trade accuracy on clean images for agreement around them."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.losses import cross_entropy, kl_divergence


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("trades")
class TRADES(Defense):
    """CE(f(x), y) + beta · KL(f(x) || f(x')), the gradient going through both predictions.

    x' climbs the same divergence: give `PGD(loss="kl", start="normal", ...)` as adversary.

    Args:
        classifier: built Keras model from images to logits.
        adversary: attack that makes x'.
        beta: weight of the divergence, 1/lambda in the paper; 6 on CIFAR-10, 1 on MNIST.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: no adversary, or a weight that is not >= 0.

    Source: Zhang et al. 2019, equation 5 and algorithm 1.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=0.3, steps=10, loss="kl", start="normal")
    >>> defense = kr.defenses.TRADES(kr.models.build("small_cnn"), adversary, beta=1.0)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_adversary = True

    def __init__(self, classifier: keras.Model, adversary: Any, beta: float = 6.0, **options: Any) -> None:
        super().__init__(classifier, adversary, terms={"clean": 1.0, "robustness": beta}, **options)

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        weights = [self.terms["clean"], self.terms["robustness"]]
        loss = {"name": "weighted", "objectives": ["cross_entropy", "kl"], "weights": weights}
        return [loss, {"name": "cross_entropy"}]

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        clean, adversarial = self.view(batch, "clean"), self.view(batch, "adversarial")
        return {
            "clean": cross_entropy(batch.labels, clean.logits),
            "robustness": kl_divergence(clean.logits, adversarial.logits),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.terms["robustness"]}
