"""Progress and time left, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Tell = Callable[[int], None]
Begin = Callable[[str, int, int], Tell]


@contextmanager
def progress(shown: bool) -> Iterator[Begin]:
    """Gives `begin(name, total, done)`, which adds a bar and gives `tell(count)`, which moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bars:

        def begin(name: str, total: int, done: int = 0) -> Tell:
            task = bars.add_task(name, total=total, completed=done)
            return lambda count: bars.advance(task, count)

        yield begin
