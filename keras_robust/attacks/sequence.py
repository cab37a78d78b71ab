"""Several attacks in turn, each on what still stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.attacks.predictions import classify
from keras_robust.noise import Noise, reseeded


@dataclass(frozen=True, kw_only=True)
class Sequence(Attack):
    """Base of attacks that are a sequence of others; a subclass gives its `stages`."""

    @property
    def stages(self) -> dict[str, Attack]:
        raise NotImplementedError

    @property
    def least_classes(self) -> int:
        return max(stage.least_classes for stage in self.stages.values())

    def check(self, model: keras.Model) -> None:
        super().check(model)
        for stage in self.stages.values():
            stage.check(model)

    def run(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        targets: np.ndarray | None = None,
        *,
        key: tuple[int, int],
    ) -> np.ndarray:
        standing = np.ones(len(labels), bool)
        *_, (_, adversarial, _) = in_turn(self.stages, model, images, labels, standing, key)
        return adversarial


def in_turn(
    stages: Mapping[str, Attack],
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    standing: np.ndarray,
    key: tuple[int, int],
    done: int = 0,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Make the stages in turn on a batch, each on the examples that are still standing.

    Without the first `done` stages, after which `standing` stand, the rest is as with them.

    Yields:
        The name of each stage, the images `(B, ...)` after it, and which of them stand, `(B,)` bool.
    """
    adversarial, standing = images.copy(), standing.copy()
    for place, (name, stage) in list(enumerate(stages.items()))[done:]:
        rows = np.flatnonzero(standing)
        if rows.size:
            adversarial[rows] = stage.run(model, images[rows], labels[rows], key=key)
            with reseeded(model, Noise(key).fold(place)):
                standing[rows] = classify(model, adversarial[rows]) == labels[rows]
        yield name, adversarial, standing.copy()
