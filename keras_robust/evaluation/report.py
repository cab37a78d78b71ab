"""What an evaluation found, example by example."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from keras_robust.errors import InputError
from keras_robust.files import write_text


@dataclass(frozen=True)
class Outcome:
    """One attack on every example.

    Attributes:
        correct: `(N,)` bool, True where the example is classified rightly before and after the attack.
        options: the attack's settings as they were used.
        black_box: whether the attack saw no gradients.
        seconds: how long it took.
    """

    correct: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    black_box: bool = False
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of all examples that stand, in percent."""
        return 100.0 * float(self.correct.mean())


@dataclass(frozen=True)
class Report:
    """Accuracy under every attack on one set of examples.

    Attributes:
        outcomes: by attack name, in the order they ran; "clean" is the accuracy without an attack.
        threat: `{"norm": ..., "eps": ...}` of the attacks.
        indices: which examples of the test set, or of the arrays given.
        flags: warnings of the masking checks, each one sentence.
        model, dataset, seed, batch_size, versions: what repeats it.
    """

    outcomes: dict[str, Outcome]
    threat: dict[str, Any]
    indices: np.ndarray
    flags: list[str]
    model: str = ""
    dataset: str = ""
    seed: int = 0
    batch_size: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(self.indices)

    @property
    def accuracy(self) -> dict[str, float]:
        """Accuracy in percent by attack name."""
        return {name: outcome.accuracy for name, outcome in self.outcomes.items()}

    @property
    def standing(self) -> np.ndarray:
        """`(N,)` bool, True where the example survives every attack."""
        return np.logical_and.reduce([outcome.correct for outcome in self.outcomes.values()])

    @property
    def worst_case(self) -> float:
        """Share of the examples that survive every attack, in percent."""
        return 100.0 * float(self.standing.mean())

    def table(self) -> Table:
        """The report as a table for the terminal."""
        norm, eps = self.threat["norm"], self.threat["eps"]
        title = f"{self.model or 'model'} on {self.examples} examples of {self.dataset or 'the data given'}"
        table = Table(title=f"{title}, {norm} eps {eps:.4g}")
        table.add_column("attack")
        table.add_column("accuracy %", justify="right")
        table.add_column("seconds", justify="right")
        table.add_column("settings")
        for name, outcome in self.outcomes.items():
            options = [item for item in outcome.options.items() if item not in self.threat.items()]
            settings = ", ".join(f"{key}={_short(value)}" for key, value in options)
            table.add_row(name, f"{outcome.accuracy:.2f}", f"{outcome.seconds:.1f}", settings)
        table.add_section()
        seconds = sum(outcome.seconds for outcome in self.outcomes.values())
        table.add_row("[bold]worst case[/bold]", f"[bold]{self.worst_case:.2f}[/bold]", f"{seconds:.1f}", "")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` takes back; outcomes hold a string of 0 and 1 an example."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "threat": self.threat,
            "examples": self.examples,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "accuracy": self.accuracy,
            "worst_case": self.worst_case,
            "flags": self.flags,
            "versions": self.versions,
            "indices": self.indices.tolist(),
            "outcomes": {
                name: {
                    **asdict(outcome),
                    "correct": "".join("01"[value] for value in outcome.correct.astype(int)),
                }
                for name, outcome in self.outcomes.items()
            },
        }

    def to_json(self, path: Path | str) -> Path:
        """Write the report to a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        return Path(path)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The report of `to_dict`."""
        outcomes = {
            name: Outcome(**{**outcome, "correct": np.array([bit == "1" for bit in outcome["correct"]])})
            for name, outcome in values["outcomes"].items()
        }
        kept = {
            key: values[key]
            for key in ("model", "dataset", "threat", "seed", "batch_size", "flags", "versions")
        }
        return cls(outcomes=outcomes, indices=np.array(values["indices"], "int64"), **kept)

    @classmethod
    def from_json(cls, path: Path | str) -> Report:
        """Read a report that `to_json` wrote."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a report: {error!r}.") from error


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
