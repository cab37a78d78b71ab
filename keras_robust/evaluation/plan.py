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
            found = self._found(name, attack, clean, ledger, places, begin)
            outcomes[name] = self._outcome(attack, found)
        return outcomes

    def _found(
        self,
        name: str,
        attack: Attack | None,
        clean: np.ndarray | None,
        ledger: Ledger,
        places: list[Replica],
        begin: Begin,
    ) -> list[blocks.Found]:
        """What an attack found in each block, in order."""
        stages = len(attack.stages) if attack else 1
        found = {number: ledger.get(name, number) for number in self.rows}
        todo = [number for number, kept in found.items() if len(kept.standing) < stages]
        share = {number: len(rows) / stages for number, rows in self.rows.items()}
        tell = begin(name, len(self.order), sum(share[n] * len(kept.standing) for n, kept in found.items()))
        standing = self._by_block(clean)

        def keep(number: int, result: blocks.Found) -> None:
            ledger.add(name, number, result)
            tell(share[number])

        def work(model: keras.Model, number: int) -> blocks.Found:
            with reseeded(model, Noise((self.seed, number))):
                return self._made(
                    model, attack, number, standing[number], found[number], partial(keep, number)
                )

        for number, result in on_replicas(work, todo, places):
            keep(number, result)
            found[number] = result
        return list(found.values())

    def _by_block(self, values: np.ndarray | None) -> dict[int, Any]:
        """What is known of each example, by number of its block."""
        if values is None:
            return dict.fromkeys(self.rows)
        ends = np.cumsum([len(rows) for rows in self.rows.values()])
        return dict(zip(self.rows, np.split(values, ends[:-1]), strict=True))

    def _made(
        self,
        model: keras.Model,
        attack: Attack | None,
        number: int,
        standing: np.ndarray | None,
        begun: blocks.Found,
        keep: Callable[[blocks.Found], None],
    ) -> blocks.Found:
        """What an attack does to the examples of a block that are `standing`."""
        images, labels = self.taken.images[self.rows[number]], self.taken.labels[self.rows[number]]
        if attack is None or standing is None:
            return blocks.classified(model, images, labels)
        key = (self.seed, number)
        if attack.minimal:
            radius = self.threat["eps"] if attack.norm == self.threat["norm"] else np.inf
            return blocks.nearest(model, attack, images, labels, standing, key, min(radius, attack.eps))
        return blocks.attacked(model, attack, images, labels, standing, key, begun, keep)

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
