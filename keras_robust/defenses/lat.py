"""LAT: adversarial training of a latent layer and of the images, in turn."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_robust.attacks import PGD
from keras_robust.attacks.view import View
from keras_robust.defenses.base import Batch, Defense, Move, defenses
from keras_robust.losses import cross_entropy
from keras_robust.models.latent import require_head


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("lat")
class LAT(Defense):
    """First a step on CE(head(z + delta), y), then one on CE(x', y).

    z is the latent of the clean images, delta the perturbation that PGD finds for the head within a box: in
    each channel `latent_eps` times the range of z over the batch (under a distribution strategy, over each
    replica's part of it). Cut the classifier where it is weak with `models.split`, and start, as the paper
    does, from one that was trained on adversarial images.

    Args:
        classifier: built `LatentClassifier` with a head.
        adversary: attack that makes x'; in training not run with `adversarial_weight=0`.
        latent_eps: size of the box as a share of each channel's range, >= 0.
        latent_steps: steps of PGD on the latent, >= 1.
        latent_weight: weight of the first step's loss, >= 0.
        adversarial_weight: weight of the second step's loss, >= 0.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: a classifier without a head, or an option that is not as described.

    Source: Sinha et al., IJCAI 2019, "Harnessing the vulnerability of latent layers in adversarially
    trained models", algorithm 1.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=8 / 255, steps=7, step_size=2 / 255)
    >>> defense = kr.defenses.LAT(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    """

    coupled_terms = ("latent",)

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any,
        latent_eps: float = 0.1,
        latent_steps: int = 7,
        latent_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        **options: Any,
    ) -> None:
        terms = {"latent": latent_weight, "adversarial": adversarial_weight}
        super().__init__(classifier, adversary, terms=terms, **options)
        require_head("LAT", classifier)
        self.latent_adversary = PGD(eps=latent_eps, steps=latent_steps, bounds=(-math.inf, math.inf))

    @property
    def needs_adversary(self) -> bool:  # type: ignore[override]
        return bool(self.terms["adversarial"])

    def moves(self) -> list[Move]:
        both = {"latent": Move(self.latent_terms), "adversarial": Move(self.loss_terms)}
        return [both[term] for term in self.active_terms]

    def latent_terms(self, batch: Batch) -> dict[str, Any]:
        encoder, head = self.classifier.encoder, self.classifier.head
        latent = ops.cast(encoder(batch.images, training=batch.training), "float32")
        fixed, span = ops.stop_gradient(latent), _channel_ranges(latent)

        def moved(shares: Any, training: bool) -> Any:
            return head(fixed + span * shares, training=training)

        shares = self.latent_adversary.perturb(moved, ops.zeros_like(fixed), batch.labels, batch.noise)
        logits = head(latent + span * shares, training=batch.training)
        batch.views["latent"] = View(ops.cast(logits, "float32"))
        return {"latent": cross_entropy(batch.labels, logits)}

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        return {"adversarial": cross_entropy(batch.labels, self.view(batch, "adversarial").logits)}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_eps": self.latent_adversary.eps,
            "latent_steps": self.latent_adversary.steps,
            "latent_weight": self.terms["latent"],
            "adversarial_weight": self.terms["adversarial"],
        }


def _channel_ranges(latent: Any) -> Any:
    """Largest minus smallest value of each channel, over the batch and the positions: `(1, ..., C)`."""
    axes = tuple(range(len(latent.shape) - 1))
    fixed = ops.stop_gradient(latent)
    return ops.max(fixed, axis=axes, keepdims=True) - ops.min(fixed, axis=axes, keepdims=True)
