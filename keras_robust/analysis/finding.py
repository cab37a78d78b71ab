"""What every analysis gives: numbers, a table for the terminal, a picture."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from keras_robust.errors import require
from keras_robust.files import replacing, write_text


class Finding(ABC):
    """Base: give `rows`, `table` and `draw`.

    Attributes:
        size: width and height of the picture in inches.
        notes: what is missing from it, and why.
    """

    notes: Sequence[str] = ()

    @property
    def size(self) -> tuple[float, float]:
        return 5, 3.5

    @abstractmethod
    def rows(self) -> Iterable[Sequence[Any]]:
        """The numbers behind the picture: a header, then one row for each of them."""

    @abstractmethod
    def table(self) -> Table:
        """What there is to say of them, for the terminal."""

    @abstractmethod
    def draw(self, figure: Any) -> None:
        """Draw into an empty matplotlib figure or subfigure."""

    def to_csv(self, path: Path | str) -> Path:
        """Write `rows` to a file, whole or not at all."""
        return write_csv(path, self.rows())

    def to_png(self, path: Path | str) -> Path:
        """Write the picture; the numbers go beside it as CSV."""
        from matplotlib.figure import Figure

        path = png(path)
        figure = Figure(figsize=self.size, layout="constrained")
        self.draw(figure)
        with replacing(path) as draft:
            figure.savefig(draft, dpi=150)
        self.to_csv(path.with_suffix(".csv"))
        return path


def png(path: Path | str) -> Path:
    """`path`, if it is a picture's name."""
    path = Path(path)
    require(path.suffix == ".png", f"A picture's name ends in .png. Received: {path}.")
    return path


def write_csv(path: Path | str, rows: Iterable[Sequence[Any]]) -> Path:
    """Write rows to a file, whole or not at all."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
    return Path(path)


def columns(*names: str, title: str | None = None) -> Table:
    """A table for the terminal with its numbers to the right, but for the first column."""
    table = Table(title=title)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left")
    return table
