"""ATLD: adversarial training with a latent discriminator as adversary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from keras_robust.attacks.separation import Separation
from keras_robust.attacks.view import View, observe
from keras_robust.defenses.base import Batch, Defense, Move, defenses
from keras_robust.errors import require, require_above_zero, require_choice
from keras_robust.losses import (
    gradient_ratio,
    logit_matching,
    manifold_bound,
    smoothed_labels,
    soft_cross_entropy,
)
from keras_robust.losses.soft_cross_entropy import check_share
from keras_robust.models.discriminators import (
    SEEN,
    build_discriminator,
    check_discriminator,
    discriminators,
    seen_shape,
)
from keras_robust.models.manifold_transform import check_band
from keras_robust.schema import check_options

_CHOICES = {
    "classifier_term": ("mse", "gan"),
    "clean_mode": ("training", "evaluation"),
    "on": SEEN,
    "ratio_at": ("logits", "images"),
}


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("atld")
class ATLD(Defense):
    """Adversarial images that a discriminator tells apart, and a classifier that is robust to them.

    1. x' climbs the discriminator's certainty that it is adversarial, without a label: the adversary's
       own loss is replaced in training, and kept in evaluation.
    2. The classifier descends CE(f(x'), y~) of smoothed labels y~ and a term that draws x' to x:
       with `classifier_term="mse"` matching_weight · s · MSE(f(x'), f(x)), f(x) being fixed and s the
       ratio of the largest gradients of the two (the authors' code); with "gan" matching_weight · bound,
       the game against the discriminator (the paper, equation 7).
    3. The discriminator takes two steps on the bound of the Jensen-Shannon divergence of clean and
       adversarial latents, and on the classes of both.

    Args:
        classifier: built Keras model from images to logits.
        adversary: an attack with an exchangeable loss; the authors take one full step from a random start,
            `PGD(eps=eps, steps=1, step_size=eps)`.
        discriminator: a model of `build_discriminator`, or its options, `{"name": ..., **options}`.
        classifier_term: "mse" or "gan".
        matching_weight: weight of that term, >= 0; with "mse" 0.5 on CIFAR-10 and SVHN, 0.1 on CIFAR-100;
            equation 7, which is "gan", has 1.
        class_weight: weight of the discriminator's class loss, >= 0; 0: it has no class outputs.
        smoothing: mass of y~ off the true class, in [0, 1 - 1/K) with K classes.
        on: what the discriminator looks at, the "logits" (code) or the "latent", the last hidden layer
            (paper).
        clean_mode: of the network that gives the fixed f(x): "training", so that f(x) and f(x') are both
            normalised by their batches; or "evaluation", as a frozen copy in the code. Moving averages lag
            behind: where steps are large f(x) runs away, f(x') is drawn after it, and training diverges.
        ratio_at: where s compares gradients: at the "images", as the code does, or at the "logits", through
            which both gradients pass. The former takes two further passes in training mode, which also move
            the averages of batch normalisation.
        ratio_limit: largest s, > 0.
        learning_rate: of the discriminator's SGD with momentum 0.9, unless `compile` is given another.
        band: of the variant "imt+", see `models.with_manifold_transform`; (0.3, 0.6) on SVHN.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: an adversary without a loss, or an option that is not as described.

    Source: "Adversarial training with latent distribution" (ATLD), ICLR 2021 submission, equation 7, and the
    authors' code where named.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=8 / 255, steps=1, step_size=8 / 255)
    >>> defense = kr.defenses.ATLD(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    >>> defense.active_terms
    ['adversarial', 'matching', 'manifold', 'classes']
    """

    needs_adversary = True
    coupled_terms = ("matching",)

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any,
        discriminator: keras.Model | dict[str, Any] | None = None,
        *,
        classifier_term: str = "mse",
        matching_weight: float = 0.5,
        class_weight: float = 1.0,
        smoothing: float = 0.5,
        on: str = "logits",
        clean_mode: str = "training",
        ratio_at: str = "logits",
        ratio_limit: float = 10.0,
        learning_rate: float = 0.001,
        band: Sequence[float] = (0.3, 0.7),
        **options: Any,
    ) -> None:
        terms = {"adversarial": 1.0, "matching": matching_weight, "manifold": 1.0, "classes": class_weight}
        super().__init__(classifier, adversary, terms=terms, **options)
        chosen = {
            "classifier_term": classifier_term,
            "clean_mode": clean_mode,
            "on": on,
            "ratio_at": ratio_at,
        }
        for name, value in chosen.items():
            require_choice(f"{name} of ATLD", value, _CHOICES[name])
        require_above_zero(ratio_limit=ratio_limit, learning_rate=learning_rate)
        require(
            hasattr(adversary, "loss"),
            f"ATLD needs an adversary whose loss it can replace, such as PGD. Received: {adversary!r}.",
        )
        check_share("smoothing", smoothing, classifier.output_shape[-1])
        check_band(band)
        self.discriminator = _discriminator(discriminator, classifier, on, bool(class_weight))
        self.settings: dict[str, Any] = {
            **chosen,
            "smoothing": smoothing,
            "ratio_limit": ratio_limit,
            "learning_rate": learning_rate,
            "band": list(band),
        }

    def players(self) -> dict[str, keras.Model]:
        return {**super().players(), "discriminator": self.discriminator}

    def default_optimizer(self, player: str, first: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(self.settings["learning_rate"], momentum=0.9)

    def moves(self) -> list[Move]:
        # The classifier first: the discriminator looks at latents that its pass has made.
        return [
            Move(self.loss_terms),
            Move(self.discriminator_terms, players=("discriminator",), repeat=2),
        ]

    def perturb(self, batch: Batch) -> Any:
        if not batch.training:
            return super().perturb(batch)
        adversary = replace(self.adversary, loss=Separation(self.discriminator, self.settings["on"]))
        return adversary.perturb(self.classifier, batch.images, batch.labels, batch.noise)

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """What smoothed labels flatten the margin shows; the discriminator is no part of the classifier."""
        return [{"name": "cross_entropy"}, {"name": "margin"}]

    def companions(self) -> dict[str, keras.Model]:
        """The discriminator, unless it was made without `build_discriminator`."""
        return {"discriminator": self.discriminator} if hasattr(self.discriminator, "architecture") else {}

    def variants(self) -> dict[str, Any]:
        """The classifier as it is, and behind the manifold transform, whose steps are in the maximum norm."""
        if self.adversary.norm != "linf" or not self.companions():
            return {}
        common = {"name": "manifold_transform", "eps": self.adversary.eps, "on": self.settings["on"]}
        plus = {**common, "mode": "imt+", "band": self.settings["band"]}
        transformed = {"imt": {**common, "mode": "imt"}, "imt+": plus}
        wrapped = {name: {"wrapper": options} for name, options in transformed.items()}
        return {"static": None, **wrapped}

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        game = self.settings["classifier_term"] == "gan"
        training = batch.training and (game or self.settings["clean_mode"] == "training")
        clean = self.view(batch, fixed=not game, training=training)
        adversarial = self.view(batch, "adversarial")
        targets = smoothed_labels(batch.labels, adversarial.logits.shape[-1], self.settings["smoothing"])
        terms = {"adversarial": soft_cross_entropy(targets, adversarial.logits)}
        if self.terms["matching"] and game:
            terms["matching"] = self._bound(clean, adversarial)
        elif self.terms["matching"]:
            ratio = self._ratio(batch, targets, clean, adversarial)
            terms["matching"] = ratio * logit_matching(clean.logits, adversarial.logits)
        return terms

    def discriminator_terms(self, batch: Batch) -> dict[str, Any]:
        seen = {which: ops.stop_gradient(self._seen(view)) for which, view in batch.views.items()}
        # In one pass: batch normalisation of each alone would hide the difference.
        both = ops.concatenate([seen["clean"], seen["adversarial"]], axis=0)
        outputs = self.discriminator(both, training=batch.training)
        clean, adversarial = ops.split(outputs["manifold"], 2)
        terms = {"manifold": -manifold_bound(clean, adversarial)}
        if "classes" in outputs:
            targets = smoothed_labels(batch.labels, outputs["classes"].shape[-1], self.settings["smoothing"])
            losses = [soft_cross_entropy(targets, logits) for logits in ops.split(outputs["classes"], 2)]
            terms["classes"] = sum(losses)
        return terms

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "discriminator": keras.saving.serialize_keras_object(self.discriminator),
            "matching_weight": self.terms["matching"],
            "class_weight": self.terms["classes"],
            **self.settings,
        }

    def _bound(self, clean: View, adversarial: View) -> Any:
        """The bound that the discriminator raises, to be lowered by the classifier."""
        views = clean, adversarial
        scores = [self.discriminator(self._seen(view), training=False)["manifold"] for view in views]
        return manifold_bound(scores[0], scores[1])

    def _ratio(self, batch: Batch, targets: Any, clean: View, adversarial: View) -> Any:
        """s: how much larger the gradient of the cross-entropy is than that of the matching."""
        if self.settings["ratio_at"] == "logits":
            point, through = ops.stop_gradient(adversarial.logits), lambda logits: logits
        else:
            point = batch.adversarial

            def through(images: Any) -> Any:
                return observe(self.classifier, images, training=batch.training).logits

        hard = self.input_gradient(lambda at: soft_cross_entropy(targets, through(at)), point)
        soft = self.input_gradient(lambda at: logit_matching(clean.logits, through(at)), point)
        return gradient_ratio(hard, soft, self.settings["ratio_limit"])

    def _seen(self, view: View) -> Any:
        return getattr(view, self.settings["on"])


def _discriminator(given: Any, classifier: keras.Model, on: str, with_classes: bool) -> keras.Model:
    """The discriminator that was given, or one of the options that were."""
    if not isinstance(given, keras.Model):
        options = {"name": "residual_mlp"} if given is None else given
        require(
            isinstance(options, Mapping) and "name" in options,
            f"discriminator must be a keras.Model or a mapping with a name. Received: {given!r}.",
        )
        name, rest = options["name"], {key: value for key, value in options.items() if key != "name"}
        supplied = ("input_shape", "num_classes")
        check_options(f"discriminator {name!r}", rest, discriminators[name], supplied=supplied)
        classes = classifier.output_shape[-1] if with_classes else None
        given = build_discriminator(name, seen_shape(classifier, on), classes, **rest)
    check_discriminator(given, classifier, on)
    require(
        not with_classes or "classes" in given.output,
        "The discriminator has no class outputs: build it with num_classes, or set class_weight to 0.",
    )
    return given
