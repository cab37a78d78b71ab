"""What ATLD's adversary climbs: the certainty of a discriminator that a latent is adversarial."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import keras

from keras_robust.attacks.objective import Objective
from keras_robust.attacks.view import Goal, View
from keras_robust.errors import require
from keras_robust.models.discriminators import kept_beside


@dataclass(frozen=True, eq=False)
class Separation(Objective):
    """The log-odds of "adversarial" that a discriminator gives, whatever the label.

    They rise where the discriminator's cross-entropy falls, and in the same direction, but keep a
    gradient where it is certain.

    Args:
        discriminator: of `build_discriminator`; it runs with `training=False`.
        on: what it looks at, the "logits" or the "latent" of the classifier.

    Source: ATLD (ICLR 2021 submission), equation 7.

    >>> import keras_robust as kr
    >>> discriminator = kr.models.build_discriminator("residual_mlp", (10,))
    >>> kr.attacks.PGD(eps=0.1, steps=1, loss=Separation(discriminator)).objective.label
    'separation'
    """

    discriminator: keras.Model
    on: str = "logits"

    targetable = False

    @classmethod
    def beside(cls, model: keras.Model, on: str = "logits") -> Separation:
        """The objective of the discriminator that was trained with a classifier and is kept beside it.

        Raises:
            InputError: there is none.
        """
        return cls(kept_beside(model), on)

    @property
    def label(self) -> str:
        return "separation"

    def stated(self) -> dict[str, Any]:
        """Plain data that tell it from others."""
        weights = hashlib.sha256(b"".join(weight.tobytes() for weight in self.discriminator.get_weights()))
        return {"name": self.label, "on": self.on, "weights": weights.hexdigest()}

    def __call__(self, view: View, goal: Goal) -> Any:
        looked_at = getattr(view, self.on)
        require(
            looked_at is not None,
            "A discriminator on the latent needs a LatentClassifier; see keras_robust.models.split.",
        )
        return -self.discriminator(looked_at, training=False)["manifold"]
