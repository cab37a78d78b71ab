"""Reproduce studies and keep their results beside them: python tools/make_study.py NAME..."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from pages import write_pages

from keras_robust import studies
from keras_robust.cli.output import console

ROOT = Path(__file__).resolve().parent.parent


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--profile", default="laptop", show_default=True)
@click.option("--train/--no-train", default=True, show_default=True, help="Train what is missing.")
@click.option("--runs", type=click.Path(path_type=Path), default=ROOT / "runs", help="Where runs are kept.")
def make_study(names: tuple[str, ...], profile: str, train: bool, runs: Path) -> None:
    """Publish the results of the studies NAMES in recipes/studies/NAME/ and on their page."""
    for name in names:
        results = studies.reproduce(name, profile, runs, train=train)
        console().print(results.table())
        place = ROOT / "recipes" / "studies" / name
        shutil.rmtree(place, ignore_errors=True)
        results.write(place)
        for file in results.files:
            shutil.copyfile(runs / results.study.directory / file, place / file)
    write_pages()


if __name__ == "__main__":
    make_study()
