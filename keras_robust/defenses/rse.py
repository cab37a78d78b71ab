"""RSE: random self-ensemble, training and prediction under noise."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.attacks.view import observe
from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.errors import require_count
from keras_robust.losses import cross_entropy
from keras_robust.models.self_ensemble import with_noise


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("rse")
class RSE(Defense):
    """CE(f(x), y), with noise on the images and before every convolution of f.

    What is deployed averages the probabilities of several noisy passes: the variant "ensemble" of the
    classifier, `models.with_self_ensemble`. Evaluated within training is the classifier without noise.

    Args:
        classifier: built Keras model of layers, from images to logits.
        adversary: attack for the adversarial accuracy in evaluation, or None; training makes none.
        first: deviation of the noise on the images, >= 0; 0.2 on CIFAR-10, 0.8 on MNIST.
        inner: deviation of the noise before every convolution after the first, >= 0; 0.1 and 0.4 there.
        passes: averaged by the ensemble, >= 1.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: an option that is not as described.

    Source: Liu et al. 2018, "Towards robust neural networks via random self-ensemble", algorithm 1; its
    deviations as in the code of ER-Classifier's authors.

    >>> import keras_robust as kr
    >>> defense = kr.defenses.RSE(kr.models.build("small_cnn"))
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    >>> list(defense.variants())
    ['ensemble', 'single']
    """

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any = None,
        first: float = 0.2,
        inner: float = 0.1,
        passes: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(classifier, adversary, terms={"clean": 1.0}, **options)
        require_count(passes=passes)
        self.noisy = with_noise(classifier, first, inner)
        self.settings = {"first": first, "inner": inner, "passes": passes}

    def variants(self) -> dict[str, Any]:
        return {"ensemble": {"wrapper": {"name": "self_ensemble", **self.settings}}, "single": None}

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        return [{"name": "cross_entropy"}, {"name": "margin"}]

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        seen_by = self.noisy if batch.training else self.classifier
        batch.views["clean"] = observe(seen_by, batch.images, training=batch.training)
        return {"clean": cross_entropy(batch.labels, batch.views["clean"].logits)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}
