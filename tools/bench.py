"""Benchmarks as ratios measured in one run: python tools/bench.py [SECTION...]."""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import bench_attacks  # noqa: F401  (each registers its sections)
import bench_autoattack  # noqa: F401
import bench_distributed  # noqa: F401
import bench_libraries  # noqa: F401
import bench_looking  # noqa: F401
import bench_memory  # noqa: F401
import bench_steps  # noqa: F401
import bench_training  # noqa: F401
import click
from measuring import DEFAULT_MODELS, MODELS, SECTIONS, Row, Setting
from rich.table import Table

from keras_robust.cli.output import console, import_tensorflow
from keras_robust.files import write_text


def table(rows: list[Row]) -> Table:
    """The rows of one section."""
    shown = Table(title=f"{rows[0].section}: {SECTIONS[rows[0].section].__doc__}", title_justify="left")
    for column in ("model", "measure"):
        shown.add_column(column)
    for column in ("value", "rounds", "target", "", "of"):
        shown.add_column(column, justify="right")
    verdict = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: ""}
    for row in rows:
        shown.add_row(
            row.model,
            row.measure,
            "" if row.value is None else f"{row.value:.3g}",
            "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}",
            str(row.target or ""),
            verdict[row.passed],
            row.detail.replace("[", "\\["),
        )
    return shown


def as_json(setting: Setting, rows: list[Row]) -> str:
    """Everything that was measured, and on what."""
    environment = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in ("tensorflow", "keras", "numpy")},
    }
    values = [{**asdict(row), "target": row.target and str(row.target), "passed": row.passed} for row in rows]
    return json.dumps({"setting": asdict(setting), "environment": environment, "rows": values}, indent=1)


_POSITIVE = click.IntRange(min=1)


def _help() -> str:
    lines = [f"  {name:<12} {function.__doc__}" for name, function in SECTIONS.items()]
    return "\n".join(["\b", "Sections:", *lines])


@click.command(epilog=_help())
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)), metavar="[SECTION]...")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Also write this file.")
@click.option("--batch", default=128, show_default=True, type=_POSITIVE, help="Images in a batch.")
@click.option("--repeats", default=5, show_default=True, type=_POSITIVE, help="Timed rounds.")
@click.option("--seeds", default=3, show_default=True, type=_POSITIVE, help="Runs of AutoAttack.")
@click.option("--examples", type=_POSITIVE, help="Images for agreement [1000] and autoattack [128].")
@click.option(
    "--models",
    "-m",
    multiple=True,
    default=DEFAULT_MODELS,
    show_default=True,
    type=click.Choice(list(MODELS)),
    help="Repeat it for several.",
)
def main(
    sections: tuple[str, ...],
    path: Path | None,
    batch: int,
    repeats: int,
    seeds: int,
    examples: int | None,
    models: tuple[str, ...],
) -> None:
    """Measure ratios: every SECTION, or those named.

    What is compared is timed in turns within one run, so a ratio holds where seconds would not. Run it on
    an otherwise idle machine.
    """
    import_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # deprecations inside the libraries
    setting = Setting(models, batch, repeats, seeds, examples)
    rows: list[Row] = []
    for name in sections or SECTIONS:
        with console().status(name):
            measured = list(SECTIONS[name](setting))
        console().print(table(measured))
        rows += measured
    judged = [row.passed for row in rows if row.passed is not None]
    click.echo(f"{sum(judged)} of {len(judged)} targets met.")
    if path:
        write_text(path, as_json(setting, rows))


if __name__ == "__main__":
    main()
