"""VAE-CLA: a variational encoder and a classifier on its code."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.attacks.view import View
from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.layers import CodeMean
from keras_robust.losses import cross_entropy, normal_divergence
from keras_robust.models.observed import before


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("vae_cla")
class VAECLA(Defense):
    """CE(C(z), y) + divergence_weight · KL(q(z|x) || N(0, I)), z drawn from q(z|x).

    The encoder describes q by means and log-variances. In training z is drawn from it; deployed and in
    evaluation it is the mean.

    Args:
        classifier: built `LatentClassifier` with a `CodeMean` layer in its encoder, such as
            `build("er_cnn", variational=True)`.
        adversary: attack for the adversarial accuracy in evaluation, or None; training makes none.
        divergence_weight: >= 0; the paper does not state it.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: another classifier, or an option that is not as described.

    Source: the baseline of ER-Classifier (ICCV 2021), figure 4; Kingma & Welling 2014, equation 10.

    >>> import keras_robust as kr
    >>> defense = kr.defenses.VAECLA(kr.models.build("er_cnn", filters=4, variational=True))
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    needs_latent = CodeMean

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any = None,
        divergence_weight: float = 0.001,
        **options: Any,
    ) -> None:
        super().__init__(
            classifier, adversary, terms={"clean": 1.0, "divergence": divergence_weight}, **options
        )
        self.moments = before(classifier.encoder, CodeMean)

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        moments = ops.cast(self.moments(batch.images, training=batch.training), "float32")
        mean, log_variance = ops.split(moments, 2, axis=-1)
        code = mean
        if batch.training:
            code = mean + ops.exp(0.5 * log_variance) * batch.noise.normal(ops.shape(mean))
        logits = ops.cast(self.classifier.head(code, training=batch.training), "float32")
        batch.views["clean"] = View(logits, code)
        return {
            "clean": cross_entropy(batch.labels, logits),
            "divergence": normal_divergence(mean, log_variance),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "divergence_weight": self.terms["divergence"]}
