"""One attack on one block of examples: the unit that is kept, resumed, sharded and placed on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_robust.attacks import Attack, classify
from keras_robust.attacks.sequence import in_turn
from keras_robust.evaluation.report import from_bits, from_numbers, to_bits, to_numbers
from keras_robust.threat import L2, Linf, ThreatModel


@dataclass(frozen=True)
class Found:
    """What one attack did to the examples of one block.

    standing: `(B,)` bool by stage, True where the example stood after it.
    distances: `(B,)` by measure, of a minimum-norm attack.
    """

    standing: dict[str, np.ndarray]
    distances: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` takes back."""
        return {
            "standing": {name: to_bits(values) for name, values in self.standing.items()},
            "distances": {name: to_numbers(values) for name, values in self.distances.items()},
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Found:
        """What `to_dict` gave."""
        return cls(
            {name: from_bits(text) for name, text in values["standing"].items()},
            {name: from_numbers(numbers) for name, numbers in values["distances"].items()},
            values["seconds"],
        )


def classified(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Found:
    """Which examples are classified rightly without an attack."""
    begun = time.perf_counter()
    correct = classify(model, images) == labels
    return Found({"": correct}, seconds=time.perf_counter() - begun)


def attacked(
    model: keras.Model,
    attack: Attack,
    images: np.ndarray,
    labels: np.ndarray,
    standing: np.ndarray,
    key: tuple[int, int],
    found: Found,
    keep: Callable[[Found], None],
) -> Found:
    """Make the stages of `attack` in turn on the examples that are `standing`.

    Args:
        found: by the first of the stages already.
        keep: is given what is found so far, after each stage but the last.
    """
    *_, standing = (standing, *found.standing.values())
    begun = time.perf_counter() - found.seconds
    for name, _, left in in_turn(attack.stages, model, images, labels, standing, key, len(found.standing)):
        found = Found({**found.standing, name: left}, seconds=time.perf_counter() - begun)
        if len(found.standing) < len(attack.stages):
            keep(found)
    return found


def nearest(
    model: keras.Model,
    attack: Attack,
    images: np.ndarray,
    labels: np.ndarray,
    standing: np.ndarray,
    key: tuple[int, int],
    radius: float,
) -> Found:
    """Make a minimum-norm attack; an example stands if nothing is found within `radius` of it."""
    begun = time.perf_counter()
    rows = np.flatnonzero(standing)
    distances = {name: np.full(len(images), np.nan) for name in MEASURES}
    after = standing.copy()
    if rows.size:
        adversarial = attack.run(model, images[rows], labels[rows], key=key)
        wrong = classify(model, adversarial) != labels[rows]
        delta = adversarial - images[rows]
        for name, measure in MEASURES.items():
            distances[name][rows] = np.where(wrong, measure(delta), np.nan)
        size = np.asarray(ThreatModel(attack.norm).distance(adversarial, images[rows]))
        after[rows] = ~(wrong & (size <= radius))
    return Found({"": after}, distances, time.perf_counter() - begun)


def _rms(delta: np.ndarray) -> np.ndarray:
    """Root of the mean square over the pixels."""
    return np.sqrt(np.mean(np.square(delta.reshape(len(delta), -1)), axis=1))


MEASURES = {"linf": Linf.size, "l2": L2.size, "rms": _rms}
