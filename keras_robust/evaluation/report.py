"""What an evaluation found, example by example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_robust.errors import InputError
from keras_robust.files import write_text

CLEAN = "clean"  # the name of what is reported without an attack


class Stage(NamedTuple):
    """Where a sequence of attacks stood after one of them.

    standing: `(N,)` bool, True where the example had survived so far.
    black_box: whether this attack saw no gradients.
    """

    standing: np.ndarray
    black_box: bool = False

    @property
    def accuracy(self) -> float:
        """Share of all examples that stood, in percent."""
        return 100.0 * float(self.standing.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "accuracy": self.accuracy,
            "black_box": self.black_box,
            "standing": to_bits(self.standing),
        }


@dataclass(frozen=True)
class Outcome:
    """One attack on every example.

    Attributes:
        correct: `(N,)` bool, True where the example is classified rightly before and after the attack; of
            a minimum-norm attack, where nothing misclassified was found inside the ball.
        options: the attack's settings as they were used.
        black_box: whether the attack saw no gradients.
        seconds: how long it took.
        stages: of a sequence of attacks, where it stood after each.
        distances: of a minimum-norm attack, `(N,)` by measure ("linf", "l2", and "rms" per pixel), NaN
            where the example was misclassified to begin with or nothing was found.
        counted: whether the attack keeps to the threat model of the report, and so to the worst case.
    """

    correct: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    black_box: bool = False
    seconds: float = 0.0
    stages: dict[str, Stage] = field(default_factory=dict)
    distances: dict[str, np.ndarray] = field(default_factory=dict)
    counted: bool = True

    @property
    def accuracy(self) -> float:
        """Share of all examples that stand, in percent."""
        return 100.0 * float(self.correct.mean())

    @property
    def distance_summary(self) -> dict[str, dict[str, float]]:
        """Mean and median by measure over the examples for which a misclassified image was found."""
        found = {name: values[~np.isnan(values)] for name, values in self.distances.items()}
        return {
            name: {"mean": float(values.mean()), "median": float(np.median(values))}
            for name, values in found.items()
            if values.size
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` takes back."""
        return {
            "correct": to_bits(self.correct),
            "options": self.options,
            "black_box": self.black_box,
            "counted": self.counted,
            "seconds": self.seconds,
            "stages": {name: stage.to_dict() for name, stage in self.stages.items()},
            "distance_summary": self.distance_summary,
            "distances": {name: to_numbers(values) for name, values in self.distances.items()},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Outcome:
        """The outcome of `to_dict`."""
        return cls(
            from_bits(values["correct"]),
            values["options"],
            values["black_box"],
            values["seconds"],
            {
                name: Stage(from_bits(stage["standing"]), stage["black_box"])
                for name, stage in values["stages"].items()
            },
            {name: from_numbers(numbers) for name, numbers in values["distances"].items()},
            values["counted"],
        )


@dataclass(frozen=True)
class Report:
    """Accuracy under every attack on one set of examples.

    Attributes:
        outcomes: by attack name, in the order they ran; "clean" is the accuracy without an attack.
        threat: `{"norm": ..., "eps": ...}` of the attacks.
        indices: which examples of the test set, or of the arrays given.
        flags: warnings of the masking checks.
        probes: what the checks measured for themselves, by name.
        shard: "3/16" if these are only the blocks of one shard, else "".
        total: number of examples of all shards together.
        digests: what tells the model and the data from others: hashes of the model's "weights" and "layers"
            and of the "data", and for a variant its "wrapper".
        model, dataset, seed, batch_size, versions: what repeats it.
    """

    outcomes: dict[str, Outcome]
    threat: dict[str, Any]
    indices: np.ndarray
    flags: list[str]
    probes: dict[str, float] = field(default_factory=dict)
    shard: str = ""
    total: int = 0
    model: str = ""
    dataset: str = ""
    seed: int = 0
    batch_size: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

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
        """`(N,)` bool, True where the example survives every attack that keeps to the threat model."""
        counted = [outcome.correct for outcome in self.outcomes.values() if outcome.counted]
        return np.logical_and.reduce(counted)

    @property
    def worst_case(self) -> float | None:
        """Share of the examples that survive every attack that keeps to the threat model, in percent.

        None if there was no such attack.
        """
        attacked = any(outcome.counted and name != CLEAN for name, outcome in self.outcomes.items())
        return 100.0 * float(self.standing.mean()) if attacked else None

    def table(self) -> Table:
        """The report as a table for the terminal."""
        norm, eps = self.threat["norm"], self.threat["eps"]
        title = f"{self.model or 'model'} on {self.examples} examples of {self.dataset or 'the data given'}"
        shard = f", shard {self.shard}" if self.shard else ""
        table = Table(title=escape(f"{title}, {norm} eps {eps:.4g}{shard}"))
        table.add_column("attack")
        table.add_column("accuracy %", justify="right")
        table.add_column("seconds", justify="right")
        table.add_column("settings")
        for name, outcome in self.outcomes.items():
            options = [item for item in outcome.options.items() if item not in self.threat.items()]
            settings = ", ".join(f"{key}={_short(value)}" for key, value in options)
            mark = "" if outcome.counted else " (another ball)"
            told = escape(name + mark), f"{outcome.accuracy:.2f}", f"{outcome.seconds:.1f}", escape(settings)
            table.add_row(*told)
            for row in _details(outcome):
                table.add_row(*row, style="dim")
        table.add_section()
        seconds = sum(outcome.seconds for outcome in self.outcomes.values())
        worst = "–" if self.worst_case is None else f"{self.worst_case:.2f}"
        table.add_row("[bold]worst case[/bold]", f"[bold]{worst}[/bold]", f"{seconds:.1f}", "")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` takes back; outcomes hold a string of 0 and 1 an example."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "examples": self.examples,
            "accuracy": self.accuracy,
            "worst_case": self.worst_case,
            "indices": self.indices.tolist(),
            "outcomes": {name: outcome.to_dict() for name, outcome in self.outcomes.items()},
        }

    def to_json(self, path: Path | str) -> Path:
        """Write the report to a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        return Path(path)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The report of `to_dict`."""
        outcomes = {name: Outcome.from_dict(outcome) for name, outcome in values["outcomes"].items()}
        kept = {name: values[name] for name in _PLAIN}
        return cls(outcomes=outcomes, indices=np.array(values["indices"], "int64"), **kept)

    @classmethod
    def from_json(cls, path: Path | str) -> Report:
        """Read a report that `to_json` wrote."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a report: {error!r}.") from error


_PLAIN = (
    "model",
    "dataset",
    "threat",
    "seed",
    "batch_size",
    "shard",
    "total",
    "flags",
    "probes",
    "versions",
    "digests",
)


def to_bits(values: np.ndarray) -> str:
    """A string of 0 and 1, one an example."""
    return "".join("01"[value] for value in values.astype(int))


def from_bits(text: str) -> np.ndarray:
    """The `(N,)` bool array of `to_bits`."""
    return np.array([bit == "1" for bit in text], bool)


def to_numbers(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def from_numbers(numbers: list[float | None]) -> np.ndarray:
    """The `(N,)` float array of `to_numbers`."""
    return np.array([np.nan if number is None else number for number in numbers], float)


def _details(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """Rows below an attack's: its stages, or its distances."""
    for name, stage in outcome.stages.items():
        yield f"  {name}", f"{stage.accuracy:.2f}", "", "after this stage"
    for name, summary in outcome.distance_summary.items():
        yield f"  {name}", "", "", ", ".join(f"{key} {value:.4f}" for key, value in summary.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
