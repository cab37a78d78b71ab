"""Progress and time left, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Tell = Callable[[float], None]
Begin = Callable[[str, int, float], Tell]
Item = TypeVar("Item")


@contextmanager
def progress(shown: bool) -> Iterator[Begin]:
    """Gives `begin(name, total, done)`, which adds a bar and gives `tell(count)`, which moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bars:

        def begin(name: str, total: int, done: float = 0) -> Tell:
            # rich counts in floats, whatever it says here.
            task = bars.add_task(name, total=total, completed=done)  # type: ignore[arg-type]
            return lambda count: bars.advance(task, count)

        yield begin


def each(begin: Begin, name: str, items: Collection[Item]) -> Iterator[Item]:
    """The items one after the other, with a bar that moves on as each is done."""
    tell = begin(name, len(items), 0)
    for item in items:
        yield item
        tell(1)
