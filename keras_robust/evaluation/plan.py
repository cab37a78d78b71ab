"""Which attacks are made on which blocks of examples, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_robust.attacks import Attack
from keras_robust.evaluation import blocks
from keras_robust.evaluation.ledger import Ledger
from keras_robust.evaluation.naming import CLEAN, settings
from keras_robust.evaluation.placement import Replica, on_replicas
from keras_robust.evaluation.progress import Begin
from keras_robust.evaluation.report import Outcome, Stage
from keras_robust.evaluation.source import Examples
from keras_robust.noise import Noise, reseeded


@dataclass(frozen=True)
class Plan:
    """What one process evaluates.

    Attributes:
        threat: the threat model, of which norm and eps matter here.
        attacks: by name, the clean accuracy (None) first.
        taken: the examples of the whole evaluation.
        rows: by number of each block that is this process's, which examples are in it.
        seed: of the attacks.
    """

    threat: dict[str, Any]
    attacks: dict[str, Attack | None]
    taken: Examples
    rows: dict[int, np.ndarray]
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """The options of every attack, by its name."""
        return {name: attack and settings(attack) for name, attack in self.attacks.items()}

    @property
    def order(self) -> np.ndarray:
        """Which examples this process evaluates, in the order of what is found."""
        return np.concatenate(list(self.rows.values()))

    def outcomes(self, ledger: Ledger, places: list[Replica], begin: Begin) -> dict[str, Outcome]:
        """What every attack leaves; what the ledger has is not done again."""
        outcomes: dict[str, Outcome] = {}
        for name, attack in self.attacks.items():
            clean = outcomes[CLEAN].correct if outcomes else None
            work = self._work(name, attack, clean, ledger)
            outcomes[name] = self._outcome(attack, self._found(name, attack, work, ledger, places, begin))
        return outcomes

    def _work(
        self, name: str, attack: Attack | None, clean: np.ndarray | None, ledger: Ledger
    ) -> Callable[[keras.Model, int], blocks.Found]:
        """What is to be done with a model and the number of a block."""
        firsts = dict(zip(self.rows, np.cumsum([0, *map(len, self.rows.values())]), strict=False))

        def work(model: keras.Model, number: int) -> blocks.Found:
            with reseeded(model, Noise((self.seed, number))):
                return found(model, number)

        def found(model: keras.Model, number: int) -> blocks.Found:
            block = self.rows[number]
            images, labels = self.taken.images[block], self.taken.labels[block]
            if attack is None or clean is None:
                return blocks.classified(model, images, labels)
            standing = clean[firsts[number] :][: len(block)]
            key = (self.seed, number)
            if attack.minimal:
                radius = self.threat["eps"] if attack.norm == self.threat["norm"] else np.inf
                return blocks.nearest(model, attack, images, labels, standing, key, min(radius, attack.eps))
            begun, keep = ledger.get(name, number) or blocks.Found({}), partial(ledger.add, name, number)
            return blocks.attacked(model, attack, images, labels, standing, key, begun, keep)

        return work

    def _found(
        self,
        name: str,
        attack: Attack | None,
        work: Callable[[keras.Model, int], blocks.Found],
        ledger: Ledger,
        places: list[Replica],
        begin: Begin,
    ) -> list[blocks.Found]:
        """What an attack found in each block, in order."""
        stages = len(attack.stages) if attack else 1
        begun = {number: kept for number in self.rows if (kept := ledger.get(name, number)) is not None}
        found = {number: kept for number, kept in begun.items() if len(kept.standing) == stages}
        todo = [number for number in self.rows if number not in found]
        tell = begin(name, len(self.order), sum(len(self.rows[number]) for number in found))
        for number, result in on_replicas(work, todo, places):
            ledger.add(name, number, result)
            found[number] = result
            tell(len(self.rows[number]))
        return [found[number] for number in self.rows]

    def _outcome(self, attack: Attack | None, found: list[blocks.Found]) -> Outcome:
        standing = {
            name: np.concatenate([part.standing[name] for part in found]) for name in found[0].standing
        }
        *_, correct = standing.values()
        seconds = sum(part.seconds for part in found)
        if attack is None:
            return Outcome(correct, seconds=seconds)
        stages = {
            name: Stage(standing[name], stage.black_box) for name, stage in attack.stages.items() if name
        }
        distances = {
            name: np.concatenate([part.distances[name] for part in found]) for name in found[0].distances
        }
        inside = attack.norm == self.threat["norm"] and (attack.minimal or attack.eps <= self.threat["eps"])
        return Outcome(correct, settings(attack), attack.black_box, seconds, stages, distances, bool(inside))
