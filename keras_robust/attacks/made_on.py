"""Attacks on a classifier that changes its input, made on other models than itself."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.attacks.sequence import Sequence
from keras_robust.models.ways import ways_of


@dataclass(frozen=True, kw_only=True)
class MadeOn(Attack):
    """An attack whose images are made on another model, and shown to the one that is attacked.

    Args:
        attack: what is made there.
        way: the name of that model among the `ways_of` the one that is attacked.
    """

    attack: Attack
    way: str

    def __post_init__(self) -> None:
        for kind in ("black_box", "minimal", "norms"):
            object.__setattr__(self, kind, getattr(self.attack, kind))
        super().__post_init__()

    @property
    def least_classes(self) -> int:
        return self.attack.least_classes

    @classmethod
    def of(cls, attack: Attack, way: str) -> MadeOn:
        """The attack, made that way."""
        return cls(**attack.shared, attack=attack, way=way)

    def run(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        targets: np.ndarray | None = None,
        *,
        key: tuple[int, int],
    ) -> np.ndarray:
        return self.attack.run(ways_of(model)[self.way], images, labels, targets, key=key)


@dataclass(frozen=True, kw_only=True)
class EndToEnd(Sequence):
    """An attack on a classifier itself, its white-box stages in other ways as well, searches last.

    Args:
        attack: what is made.
        ways: names among the `ways_of` the classifier, each of the same outputs and other gradients.
    """

    attack: Attack
    ways: Items[str]

    @classmethod
    def of(cls, attack: Attack, ways: Items[str]) -> EndToEnd:
        """The attack, made in these ways too."""
        return cls(**attack.shared, attack=attack, ways=tuple(ways))

    @property
    def stages(self) -> dict[str, Attack]:
        white = {name: stage for name, stage in self.attack.stages.items() if not stage.black_box}
        black = {name: stage for name, stage in self.attack.stages.items() if stage.black_box}
        others = {
            f"{name} {way}".strip(): MadeOn.of(stage, way)
            for way in self.ways
            for name, stage in white.items()
        }
        # An attack of one stage has no name for it.
        return {**{name or "direct": stage for name, stage in white.items()}, **others, **black}
