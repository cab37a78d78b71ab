"""Take a study's measurements, cell by cell, and keep each as it is found."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from keras_robust.errors import InputError
from keras_robust.files import write_text
from keras_robust.recipes import Recipe
from keras_robust.studies.measures import Subject, measures
from keras_robust.studies.results import QUOTED, Cell, Results
from keras_robust.studies.study import Measurement, Study, load
from keras_robust.studies.subjects import Missing, Shelf
from keras_robust.versions import versions
from keras_robust.zoo.cards import Card

VALUE = "value.json"
FILES = (".png", ".csv")


def reproduce(
    name: str,
    profile: str = "laptop",
    directory: Path | str = "runs",
    *,
    train: bool = True,
    tell: Callable[[str], Any] = print,
    progress: bool = True,
) -> Results:
    """Train what a study's table needs and is missing, measure it, and put ours beside the paper's.

    Models are taken from the zoo if it has them; what is trained and measured is kept and not done again,
    in this study or another: call it again after an interruption.

    Args:
        name: a study's name, such as "adr/table1".
        profile: "paper", "laptop" or "smoke".
        directory: receives `trained/`, `measured/`, and the results in `studies/<name>/<profile>/`.
        train: whether to train what is missing; its cells say so otherwise.
        tell: takes one line for each cell.
        progress: show the progress of trainings and attacks.

    Returns:
        `Results`: every row and column of the paper's, measured, quoted, or with the reason why not.

    Raises:
        InputError: unknown study or profile, or a place that cannot be written.
    """
    study, root = load(name, profile), Path(directory)
    taking = _Taking(study, Shelf(root / "trained", train, progress), root)
    place = root / study.directory
    cells: dict[str, dict[str, Cell]] = {row: {} for row in study.rows}
    total = len(study.rows) * len(study.columns)
    for done, (row, column) in enumerate(study.places(), start=1):
        cell = taking.cell(row, column, place)
        cells[row][column] = cell
        tell(f"[{done}/{total}] {row}, {column}: {cell.ours} (paper {cell.theirs})")
    results = Results(study, cells)
    results.write(place)
    return results


@dataclass(frozen=True)
class _Taking:
    """One study being taken; `copied` names the files that lie beside its results, by what they hold."""

    study: Study
    shelf: Shelf
    root: Path
    copied: dict[bytes, str] = field(default_factory=dict)

    def cell(self, row: str, column: str, place: Path) -> Cell:
        """A cell over all seeds; the files that its measure left go to `place`."""
        measurement, paper = self.study.cell(row, column), self.study.figure(row, column)
        if measurement is None:
            return Cell(paper=paper, note=QUOTED)
        values, files = [], []
        for seed in self.study.seeds:
            try:
                kept = self._measured(measurement, seed)
            except (Missing, InputError) as reason:  # such as a model that diverged; the other cells go on
                return Cell(paper=paper, note=str(reason))
            values.append(_read(kept / VALUE))
            files += self._files(kept, place, f"{row}, {column}, {seed}")
        return Cell(values, paper, files=files)

    def _measured(self, measurement: Measurement, seed: int) -> Path:
        """The directory with what was measured for one seed, named after all that determines it."""
        recipes = measurement.recipes(self.study.profile, seed)
        weights = [_weights(self.shelf.card(recipe)) for recipe in recipes]
        measured_in = [[recipe.dataset, recipe.threat] for recipe in recipes]
        stated = {
            **asdict(measurement),
            "weights": weights,
            "measured_in": measured_in,
            "examples": self.study.examples,
            "seed": seed,
            "versions": versions(),
        }
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
        place = self.root / "measured" / digest
        if not (place / VALUE).exists():
            subjects = [self._subject(recipe, seed, place) for recipe in recipes]
            value = float(measures[measurement.measure](*subjects, **measurement.options))
            kept = {"value": None if math.isnan(value) else value, **stated}
            write_text(place / VALUE, json.dumps(kept, indent=1) + "\n")
        return place

    def _files(self, source: Path, place: Path, name: str) -> list[str]:
        """The files that a measure left, each beside the results once, named after the first such cell."""
        found = []
        for path in sorted(source.iterdir()):
            if path.suffix in FILES:
                content = path.read_bytes()
                if content not in self.copied:
                    self.copied[content] = f"{_file_name(name)}-{path.name}"
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place / self.copied[content])
                found.append(self.copied[content])
        return found

    def _subject(self, recipe: Recipe, seed: int, place: Path) -> Subject:
        return Subject(
            self.shelf.model(recipe),
            recipe.dataset,
            recipe.threat,
            self.study.examples,
            seed,
            place,
            partial(self.shelf.model, recipe),
            self.shelf.progress,
        )


def _weights(card: Card) -> dict[str, Any]:
    """What tells a card's models from others: the files that they are made of, and how."""
    files = {key: pin.sha256 for key, pin in card.files.items() if key not in card.detectors}
    return {**files, "wrappers": [variant and variant["wrapper"] for variant in card.variants.values()]}


def _read(path: Path) -> float:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))["value"]
        return math.nan if value is None else float(value)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} holds no measured value: {error}. Delete it to measure again.") from error


def _file_name(text: str) -> str:
    """Words in small letters with dashes between them; signs stay, for they tell rows apart."""
    kept = (letter if letter.isalnum() or letter in "+-" else " " for letter in text)
    return "-".join("".join(kept).split()).lower()
