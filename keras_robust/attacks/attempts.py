"""Attacks that try again on what still stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.attacks.predictions import likeliest, predict_classes
from keras_robust.errors import require_count
from keras_robust.models.precision import original
from keras_robust.noise import Noise


@dataclass(frozen=True, kw_only=True)
class RepeatedAttack(Attack):
    """Base of attacks made of attempts: restarts, or one target class after the other.

    A subclass gives `_attempt`, and `_attempts` where its attempts differ by their targets.

    Args:
        restarts: independent runs; only examples not yet misclassified take part in the next.
    """

    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(restarts=self.restarts)

    def _attempt(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> np.ndarray:
        """Adversarial images of one attempt on a batch of valid arrays."""
        raise NotImplementedError

    def _attempts(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> Iterator[Any]:
        """The targets `(B,)` of each attempt on a batch (None: untargeted), drawn from `noise`."""
        for _ in range(self.restarts):
            yield targets

    def _fooled(self, model: keras.Model, images: Any, labels: np.ndarray, targets: Any) -> np.ndarray:
        """Which images, `(B,)` bool, need no further attempt."""
        return np.asarray(predict_classes(model, images, self.jit_compile)) != labels

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> np.ndarray:
        adversarial = images.copy()
        standing = np.arange(len(images))
        judge = original(model)
        noise = Noise(key)
        attempts = list(self._attempts(model, images, labels, targets, noise))
        for number, wanted in enumerate(attempts):
            goal = (labels[standing], None if wanted is None else wanted[standing])
            found = self._attempt(model, images[standing], *goal, noise.fold(number))
            adversarial[standing] = found
            if number + 1 < len(attempts):
                standing = standing[~self._fooled(judge, found, *goal)]
            if not standing.size:
                break
        return adversarial


@dataclass(frozen=True, kw_only=True)
class LikeliestTargets(RepeatedAttack):
    """Base of attacks that aim at each of the likeliest other classes in turn.

    Args:
        classes: how many of them, from the second likeliest on the clean image.
    """

    classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(classes=self.classes)

    @property
    def has_targets(self) -> bool:
        return True

    def _attempts(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> Iterator[Any]:
        for wanted in likeliest(model, images, self.classes, self.jit_compile):
            for _ in range(self.restarts):
                yield wanted
