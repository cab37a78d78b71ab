"""The attack that a defense declares against itself."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_robust.attacks.apgd import APGD
from keras_robust.attacks.base import Attack, attacks
from keras_robust.attacks.objective import get_objective, to_config
from keras_robust.attacks.pgd import PGD
from keras_robust.attacks.sequence import Sequence
from keras_robust.errors import require, require_choice, require_count

VERSIONS = ("full", "loss")


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive(Sequence):
    """Climb each of the objectives that an attacker who knows the defense would climb.

    Args:
        objectives: each as `get_objective` takes it. A trained or loaded classifier carries its own as
            `classifier.adaptive`, where `evaluate` finds them.
        steps: of every climb, >= 1.
        step_size: of the plain climbs; None means 2.5 eps / steps.
        restarts: of every climb.
        version: "full", which climbs every objective twice, by Auto-PGD and by PGD with steps of one size;
            or "loss", which climbs the first alone and by PGD: the loss that TRADES, MAT or MMC was
            trained with, those terms of ADR's that one example has, cross-entropy of other defenses.

    Raises:
        InputError: an option is not as described.

    Source: Tramèr et al. 2020, "On adaptive attacks to adversarial example defenses".

    >>> list(Adaptive(eps=0.3, objectives=["cross_entropy", "margin"]).stages)
    ['apgd cross_entropy', 'pgd cross_entropy', 'apgd margin', 'pgd margin']
    >>> list(Adaptive(eps=0.3, objectives=["cross_entropy", "margin"], version="loss").stages)
    ['pgd cross_entropy']
    """

    objectives: Items[Any] = ("cross_entropy",)
    steps: int = 100
    step_size: float | None = None
    restarts: int = 1
    version: str = "full"

    budget: ClassVar[str | None] = "steps"
    variant: ClassVar[str | None] = "version"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(steps=self.steps, restarts=self.restarts)
        require_choice("version of the adaptive attack", self.version, VERSIONS)
        require(
            isinstance(self.objectives, Items)
            and not isinstance(self.objectives, str)
            and any(self.objectives),
            f"objectives must be a list with at least one objective. Received: {self.objectives!r}.",
        )
        object.__setattr__(self, "objectives", tuple(map(get_objective, self.objectives)))

    @property
    def stages(self) -> dict[str, Attack]:
        common = {**self.shared, "steps": self.steps, "restarts": self.restarts}
        stages: dict[str, Attack] = {}
        for label, objective in self._labelled().items():
            if self.version == "full":
                stages[f"apgd {label}"] = APGD(loss=objective, **common)
            stages[f"pgd {label}"] = PGD(loss=objective, step_size=self.step_size, **common)
        return stages

    def _labelled(self) -> dict[str, Any]:
        """The objectives to climb; of those of one label, which differ by options, the later are numbered."""
        found: dict[str, Any] = {}
        for objective in self.objectives[:1] if self.version == "loss" else self.objectives:
            alike = sum(other.label == objective.label for other in found.values())
            found[f"{objective.label} {alike + 1}" if alike else objective.label] = objective
        return found

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "objectives": [to_config(part) for part in self.objectives]}

    @classmethod
    def options_for(cls, model: keras.Model) -> dict[str, Any]:
        declared = getattr(model, "adaptive", None)
        require(
            bool(declared),
            "The model declares no adaptive objectives. Give them: Adaptive(eps=..., objectives=[...]), or "
            "set model.adaptive.",
        )
        return {"objectives": declared}
