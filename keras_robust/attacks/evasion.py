"""What an attacker climbs who knows of a detector: a wrong class, and a low score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_robust.attacks.objective import Objective, get_objective, to_config
from keras_robust.attacks.view import Goal, View
from keras_robust.errors import require, require_not_negative


@keras.saving.register_keras_serializable("keras_robust")
@dataclass(frozen=True)
class Evasion(Objective):
    """Another objective, less `weight` times how far the detector's score is above -`slack`.

    For a model whose latent is the score, such as `DensityDetector.target` gives; an image is called
    adversarial if its score is above 0.

    Args:
        loss: on the logits, as `get_objective` takes it.
        weight: of the score, >= 0.
        slack: what a score has to be below 0 before it is let be, >= 0.

    Source: Carlini & Wagner 2017, "Adversarial examples are not easily detected", section 4.2; Tramèr et al.
    2020.

    >>> Evasion("margin", 2.0).label
    'margin - 2 score'
    """

    loss: Any = "cross_entropy"
    weight: float = 1.0
    slack: float = 1.0

    def __post_init__(self) -> None:
        require_not_negative(weight=self.weight, slack=self.slack)
        object.__setattr__(self, "loss", get_objective(self.loss))

    @property
    def needs_clean(self) -> bool:  # type: ignore[override]
        return self.loss.needs_clean

    @property
    def targetable(self) -> bool:  # type: ignore[override]
        return self.loss.targetable

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return self.loss.coupled

    def least_classes(self, targeted: bool) -> int:
        return self.loss.least_classes(targeted)

    @property
    def label(self) -> str:
        return f"{self.loss.label} - {self.weight:g} score"

    def __call__(self, view: View, goal: Goal) -> Any:
        require(
            view.latent is not None and view.latent.shape[1:] == (1,),
            "Evasion attacks a classifier whose latent is a detector's score, (B, 1): take detector.target.",
        )
        return self.loss(view, goal) - self.weight * ops.relu(view.latent[:, 0] + self.slack)

    def get_config(self) -> dict[str, Any]:
        return {"loss": to_config(self.loss), "weight": self.weight, "slack": self.slack}
