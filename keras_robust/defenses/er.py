"""ER-Classifier: a code of few dimensions, drawn to a prior by a critic, and a small classifier on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_robust.defenses.base import Batch, Defense, Move, defenses
from keras_robust.defenses.rates import copied
from keras_robust.errors import require, require_above_zero, require_count
from keras_robust.layers import WeightClip
from keras_robust.losses import cross_entropy, kl_divergence, wasserstein_critic, wasserstein_generator
from keras_robust.models.critics import build_critic
from keras_robust.models.latent import require_head
from keras_robust.priors import priors
from keras_robust.schema import check_options


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("er_classifier")
class ERClassifier(Defense):
    """An encoder Q whose codes look like draws from a prior, and a classifier C on them.

    On each batch, z being draws from the prior and x' adversarial images:

    1. The critic D ascends D(z) - D(Q(x')), its weights being clipped after every step.
    2. Q and C descend the cross-entropy of C(Q(x')).
    3. Q ascends D(Q(x')) once more.

    The weights of the terms make the variants of the paper:

    - ER-Classifier: as it stands, with PGD as adversary;
    - ER-Classifier-: `clean_weight=1`, `adversarial_weight=0`; x' is then x;
    - ER-Trades: the same and `robustness_weight=1`, with `PGD(loss="kl", start="normal")`;
    - E-CLA: `critic_weight=0`, `regularization_weight=0`: no critic;
    - the authors' code: `clean_weight=0.5`, `adversarial_weight=0.5`; the critic then sees both codes.

    Args:
        classifier: built `LatentClassifier` with a head and a flat latent, the code.
        adversary: attack that makes x', usually `PGD`.
        critic: a model of `build_critic`, or its options, `{"width": ..., ...}`.
        prior: a name in `keras_robust.priors.priors`: "normal", "uniform" or "cauchy".
        clean_weight, adversarial_weight: of the cross-entropies, >= 0.
        robustness_weight: of KL(C(Q(x)) || C(Q(x'))), >= 0; TRADES' beta.
        critic_weight: of the critic's move, >= 0; 0 if and only if the next one is.
        regularization_weight: of the encoder's last move, >= 0; 0.1 on CIFAR-10 and STL-10, 0.0005 on MNIST.
        critic_steps: of the critic on each batch, >= 1.
        clip: bound of the critic's weights, > 0.
        critic_rate, head_rate: learning rates of the critic and of C as shares of the encoder's, > 0, unless
            `compile` is given optimizers for them.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    The players are "encoder", "head" and "critic".

    Raises:
        InputError: a classifier without head or with a latent that is not flat, or an option that is not as
            described.

    Source: Li et al., ICCV 2021, algorithm 1; weights and rates of the authors' code.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=0.3, steps=10)
    >>> defense = kr.defenses.ERClassifier(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    >>> list(defense.players()), defense.active_terms
    (['encoder', 'head', 'critic'], ['adversarial', 'critic', 'regularization'])
    """

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any = None,
        critic: keras.Model | dict[str, Any] | None = None,
        *,
        prior: str = "normal",
        clean_weight: float = 0.0,
        adversarial_weight: float = 1.0,
        robustness_weight: float = 0.0,
        critic_weight: float = 1.0,
        regularization_weight: float = 0.1,
        critic_steps: int = 1,
        clip: float = 0.01,
        critic_rate: float = 0.5,
        head_rate: float = 0.05,
        **options: Any,
    ) -> None:
        terms = {
            "clean": clean_weight,
            "adversarial": adversarial_weight,
            "robustness": robustness_weight,
            "critic": critic_weight,
            "regularization": regularization_weight,
        }
        super().__init__(classifier, adversary, terms=terms, **options)
        _check_classifier(classifier)
        require(
            bool(clean_weight or adversarial_weight),
            "One of clean_weight and adversarial_weight must be > 0: without it C learns nothing.",
        )
        require(
            bool(critic_weight) == bool(regularization_weight),
            "critic_weight and regularization_weight are both > 0, or both 0 (no critic). "
            f"Received: {critic_weight} and {regularization_weight}.",
        )
        require_above_zero(clip=clip, critic_rate=critic_rate, head_rate=head_rate)
        require_count(critic_steps=critic_steps)
        self.draw = priors[prior]
        self.clip = WeightClip(clip)
        self.critic: Any = _critic(critic, classifier) if critic_weight else None
        self.settings: dict[str, Any] = {
            "prior": prior,
            "critic_steps": critic_steps,
            "clip": clip,
            "critic_rate": critic_rate,
            "head_rate": head_rate,
        }

    @property
    def needs_adversary(self) -> bool:  # type: ignore[override]
        return bool(self.terms["adversarial"] or self.terms["robustness"])

    @property
    def sides(self) -> tuple[str, ...]:
        """Whose codes the critic sees: of the images of the cross-entropy; with TRADES of x'."""
        if self.terms["robustness"]:
            return ("adversarial",)
        return tuple(side for side in ("clean", "adversarial") if self.terms[side])

    def players(self) -> dict[str, keras.Model]:
        players = {"encoder": self.classifier.encoder, "head": self.classifier.head}
        return {**players, "critic": self.critic} if self.critic else players

    def default_optimizer(self, player: str, first: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        return copied(first, self.settings[f"{player}_rate"])

    def moves(self) -> list[Move]:
        classify = Move(self.loss_terms, players=("encoder", "head"))
        if not self.critic:
            return [classify]
        steps = self.settings["critic_steps"]
        criticise = Move(self.critic_terms, players=("critic",), repeat=steps, constraint=self.clip)
        return [criticise, classify, Move(self.regularization_terms, players=("encoder",))]

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        return [{"name": "cross_entropy"}, {"name": "margin"}]

    def critic_terms(self, batch: Batch) -> dict[str, Any]:
        codes = [ops.stop_gradient(code) for code in self._codes(batch)]
        draws = [self.draw(batch.noise, ops.shape(code)) for code in codes]
        losses = [
            wasserstein_critic(self.critic(draw), self.critic(code))
            for draw, code in zip(draws, codes, strict=True)
        ]
        return {"critic": sum(losses) / len(losses)}

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        views = {
            side: self.view(batch, side)
            for side in ("clean", "adversarial")
            if self.terms[side] or self.terms["robustness"]
        }
        terms = {side: cross_entropy(batch.labels, view.logits) for side, view in views.items()}
        if self.terms["robustness"]:
            terms["robustness"] = kl_divergence(views["clean"].logits, views["adversarial"].logits)
        return terms

    def regularization_terms(self, batch: Batch) -> dict[str, Any]:
        losses = [wasserstein_generator(self.critic(code)) for code in self._codes(batch)]
        return {"regularization": sum(losses) / len(losses)}

    def get_config(self) -> dict[str, Any]:
        weights = {f"{term}_weight": weight for term, weight in self.terms.items()}
        critic = {"critic": keras.saving.serialize_keras_object(self.critic)} if self.critic else {}
        return {**super().get_config(), **critic, **weights, **self.settings}

    def _codes(self, batch: Batch) -> list[Any]:
        images = {"clean": batch.images, "adversarial": batch.adversarial}
        encode = self.classifier.encoder
        return [ops.cast(encode(images[side], training=batch.training), "float32") for side in self.sides]


def _check_classifier(classifier: keras.Model) -> None:
    require_head("ERClassifier", classifier)
    shape = classifier.encoder.output_shape
    require(len(shape) == 2, f"ERClassifier needs a flat latent, (B, D). Received: one of shape {shape}.")


def _critic(given: Any, classifier: keras.Model) -> keras.Model:
    """The critic that was given, or one of the options that were."""
    dim = classifier.encoder.output_shape[-1]
    if not isinstance(given, keras.Model):
        options = {} if given is None else given
        require(
            isinstance(options, Mapping),
            f"critic must be a keras.Model or a mapping of options. Received: {given!r}.",
        )
        check_options("critic", options, build_critic, supplied=("dim",))
        return build_critic(dim, **options)
    shapes = (given.input_shape, given.output_shape) if given.built else "one that is not built"
    require(
        shapes == ((None, dim), (None,)),
        f"The critic must map codes (B, {dim}) to scores (B,). Received: {shapes}.",
    )
    return given
