"""What a study found, beside what the paper printed: as data, Markdown, CSV and curves."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_robust.errors import InputError, require
from keras_robust.files import replacing, write_text
from keras_robust.studies.study import Study, load

QUOTED = "quoted"
NOT_TRAINED = "not trained"
CURVES = "curves.png"
RESULTS = "results.json"


@dataclass(frozen=True)
class Cell:
    """One cell: a value for each seed, and the paper's figure.

    Attributes:
        values: measured, one for each seed; empty if nothing was measured.
        paper: the paper's figure, if it printed one.
        note: why nothing was measured.
        files: what the measure left, relative to the results.
    """

    values: list[float] = field(default_factory=list)
    paper: float | None = None
    note: str = ""
    files: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds, NaN if a measure has no value there."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def ours(self) -> str:
        """What was measured, or why nothing was."""
        if self.mean is None:
            return self.note if self.note == QUOTED else f"not measured: {self.note}"
        spread = "" if self.deviation is None or math.isnan(self.mean) else f" ± {_short(self.deviation)}"
        return f"{_short(self.mean)}{spread}"

    @property
    def theirs(self) -> str:
        """The paper's figure, or a dash."""
        return "–" if self.paper is None else _short(self.paper)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "values": [None if math.isnan(value) else value for value in self.values]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Cell:
        """The cell of `to_dict`."""
        numbers = [math.nan if value is None else value for value in values["values"]]
        return cls(**{**values, "values": numbers})


@dataclass(frozen=True)
class Results:
    """A study's cells, `{row: {column: Cell}}`."""

    study: Study
    cells: dict[str, dict[str, Cell]]

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.study.columns)

    def table(self) -> Table:
        """Ours beside the paper's, for the terminal."""
        table = Table(title=escape(f"{self.study.title}\n{self._caption}"))
        table.add_column("")
        for column in self.columns:
            table.add_column(escape(column), justify="right")
        for row, cells in self.cells.items():
            shown = [f"{escape(cell.ours)} [dim]({escape(cell.theirs)})[/dim]" for cell in cells.values()]
            table.add_row(escape(row), *shown)
        return table

    def to_markdown(self, place: str = "") -> str:
        """Ours beside the paper's, as a page's table, with the pictures and the command that repeats it.

        Args:
            place: directory of the pictures as seen from the page.
        """
        study = self.study
        lines = [f"### {study.title}", "", f"{study.source}. {self._caption}", ""]
        lines += [f"| | {' | '.join(self.columns)} |", "|" + " --- |" * (len(self.columns) + 1)]
        for row, cells in self.cells.items():
            shown = [f"{cell.ours} ({cell.theirs})" for cell in cells.values()]
            lines.append(f"| {' | '.join([row, *shown])} |")
        lines += ["", f"`{self.command}`"]
        notes = ["", study.notes.strip()] if study.notes else []
        pictures = [f"![{Path(file).stem}]({place}{file})" for file in self.pictures]
        return "\n".join([*lines, *notes, "", *pictures]).rstrip() + "\n"

    @property
    def command(self) -> str:
        """What repeats it, without the trainings that were left out."""
        notes = {cell.note for cells in self.cells.values() for cell in cells.values()}
        options = " --no-train" if NOT_TRAINED in notes else ""
        return f"krobust reproduce {self.study.name} --profile {self.study.profile}{options}"

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures that belong to it."""
        left = (file for file in self.files if file.endswith(".png"))
        return [*([CURVES] if self.study.curves else []), *left]

    @property
    def files(self) -> list[str]:
        """Names of the files that the measures left, pictures and their data; cells may share one."""
        cells = (cell for row in self.cells.values() for cell in row.values())
        return list(dict.fromkeys(file for cell in cells for file in cell.files))

    def to_csv(self) -> str:
        """One line a cell: row, column, ours, its deviation over the seeds, the paper's, note."""
        text = io.StringIO()
        lines = csv.writer(text)
        lines.writerow(["row", "column", "ours", "deviation", "paper", "note"])
        for row, cells in self.cells.items():
            for column, cell in cells.items():
                numbers = (cell.mean, cell.deviation, cell.paper)
                known = ["" if number is None or math.isnan(number) else number for number in numbers]
                lines.writerow([row, column, *known, cell.note])
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        kept = [field.name for field in fields(self.study)]
        cells = {
            row: {column: cell.to_dict() for column, cell in found.items()}
            for row, found in self.cells.items()
        }
        return {**{name: getattr(self.study, name) for name in kept}, "cells": cells}

    def write(self, directory: Path) -> list[Path]:
        """Write `results.json`, `table.md`, `table.csv`, and for curves `curves.png`; their paths."""
        texts = {
            RESULTS: json.dumps(self.to_dict(), indent=1) + "\n",
            "table.md": self.to_markdown(),
            "table.csv": self.to_csv(),
        }
        for name, text in texts.items():
            write_text(directory / name, text)
        return [*(directory / name for name in texts), *self._draw(directory)]

    @classmethod
    def read(cls, path: Path) -> Results:
        """The results that `write` left.

        Raises:
            InputError: the file is no such thing, the study has changed since, or a file that it tells of is
                not there.
        """
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            cells = {
                row: {column: Cell.from_dict(cell) for column, cell in found.items()}
                for row, found in kept["cells"].items()
            }
            results = cls(load(kept["name"], kept["profile"]), cells)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no results of a study: {error!r}.") from error
        require(
            json.loads(json.dumps(results.to_dict())) == kept,
            f"{path} was made of another version of the study. Make it again: krobust reproduce "
            f"{kept['name']} --profile {kept['profile']}.",
        )
        for file in results.files:
            require((path.parent / file).is_file(), f"{path} tells of {file}, which is not beside it.")
        return results

    @property
    def _caption(self) -> str:
        study = self.study
        seeds = f", mean ± deviation over {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
        ours = f"Ours on {study.examples} examples of the test set, profile {study.profile}{seeds}"
        return f"{ours}; in brackets the paper's."

    def _draw(self, directory: Path) -> list[Path]:
        """Every row as a curve over the columns, whose names are numbers."""
        if self.study.curves is None:
            return []
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axes = figure.subplots()
        for row, cells in self.cells.items():
            points = [(float(column), cell.mean) for column, cell in cells.items() if cell.values]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=row)
        axes.set(xlabel=self.study.curves.get("x", "eps"), ylabel=self.study.curves.get("y", "accuracy %"))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        with replacing(directory / CURVES) as draft:
            figure.savefig(draft, dpi=150)
        return [directory / CURVES]


def _short(value: float) -> str:
    """Two digits after the point; three significant ones for small numbers, such as norms."""
    if math.isnan(value):
        return "none found"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"
