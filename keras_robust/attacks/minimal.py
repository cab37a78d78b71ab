"""Attacks that look for the nearest misclassified image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.base import Attack
from keras_robust.attacks.compiling import gather
from keras_robust.attacks.predictions import predict_logits
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose


class Nearest(NamedTuple):
    """The nearest misclassified images `(B, ...)` found so far, and their distances `(B,)`, inf for none."""

    images: Any
    distance: Any

    def updated(self, candidates: Any, fooled: Any, distance: Any) -> Nearest:
        """With those of the `candidates` that are misclassified and nearer."""
        nearer = fooled & (distance < self.distance)
        return Nearest(choose(nearer, candidates, self.images), ops.where(nearer, distance, self.distance))

    def write(self, rows: np.ndarray, found: Nearest) -> None:
        """Take over what was `found` for some `rows`, where this one holds arrays."""
        self.images[rows] = found.images
        self.distance[rows] = found.distance


def none_yet(images: np.ndarray) -> Nearest:
    """Nothing found; in the place of a misclassified image stands the image itself."""
    return Nearest(images.copy(), np.full(len(images), np.inf, "float32"))


@dataclass(frozen=True, kw_only=True)
class MinimumNorm(Attack):
    """Base of attacks whose result is the nearest misclassified image, or the image itself if none is found.

    A subclass gives `_search`, which may walk (`_walk`) in one or more passes.

    Args:
        eps: radius inside which a misclassified image counts, and at which the search for nearer ones
            ends; `math.inf`: there is no limit, and the search goes on to its end.
    """

    eps: float = math.inf

    minimal: ClassVar[bool] = True

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> np.ndarray:
        adversarial = images.copy()
        fooled = self._fools(labels, predict_logits(model, images, self.jit_compile))
        rows = np.flatnonzero(~np.asarray(fooled))
        if rows.size:
            nearest = self._search(model, images[rows], labels[rows], Noise(key))
            inside = nearest.distance <= self.eps
            adversarial[rows[inside]] = nearest.images[inside]
        return adversarial

    def _search(self, model: keras.Model, images: np.ndarray, labels: np.ndarray, noise: Noise) -> Nearest:
        """What is found, as arrays, for images that are not misclassified themselves."""
        raise NotImplementedError

    def _fools(self, labels: Any, logits: Any) -> Any:
        """Which images, `(B,)` bool, count as misclassified."""
        return ops.cast(ops.argmax(logits, axis=-1), "int32") != labels

    def _seeks(self, distance: Any) -> np.ndarray:
        """For which examples, `(B,)` bool, the search for a nearer image goes on."""
        return (np.asarray(distance) > self.eps) | (self.eps == math.inf)

    def _goes_on(self, state: Any) -> np.ndarray:
        """The examples, `(B,)` bool, that stay in a walk."""
        return self._seeks(state.nearest.distance)

    def _walk(
        self,
        batch: Any,
        state: Any,
        lengths: Iterable[int],
        advance: Callable[[Any, Any, int, int], Any],
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Take the steps of a search, and leave out examples as they come to their end.

        Args:
            batch, state: nested structures with one row per example; `state.nearest` is what is found.
            lengths: numbers of steps between two looks at who goes on.
            advance: `(batch, state, first, steps) -> state`.

        Yields:
            After each segment, which rows took part in it and their state.
        """
        rows, first = np.arange(len(batch[0])), 0
        for steps in lengths:
            state = advance(batch, state, first, steps)
            yield rows, state
            stay = np.flatnonzero(self._goes_on(state))
            if not stay.size:
                break
            rows, batch, state, first = rows[stay], gather(batch, stay), gather(state, stay), first + steps


def segments(steps: int, length: int) -> Iterator[int]:
    """`steps` in parts of `length`; the last is what remains."""
    for done in range(0, steps, length):
        yield min(length, steps - done)


def farthest(threat: ThreatModel, images: Any) -> Any:
    """Distance `(B,)` from each of `images` to the farthest image inside the bounds."""
    low, high = threat.bounds
    return threat.distance(ops.maximum(images - low, high - images), 0.0)
