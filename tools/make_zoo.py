"""Train, evaluate and keep zoo entries: python tools/make_zoo.py NAME..."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click
from pages import write_pages

import keras_robust as kr
from keras_robust import data, training
from keras_robust.cli.output import console
from keras_robust.studies.measures import PROTOCOLS, Subject, measures

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = 1000  # of the headline: the same for every attack on it
HEADLINE = ("pgd-40", "cw-40", "autoattack", "adaptive-100")
WHOLE = ("pgd-40",)  # also on the whole test set
OF_VARIANTS = "pgd-40"  # of each further variant, by protocol


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--profile", default="laptop", show_default=True)
@click.option(
    "--attack", "attacks", multiple=True, default=HEADLINE, show_default=True, help="Of the headline."
)
@click.option("--whole/--no-whole", default=True, help=f"Also {', '.join(WHOLE)} on the whole test set.")
@click.option("--runs", type=click.Path(path_type=Path), default=ROOT / "runs", help="Where runs are kept.")
def make_zoo(names: tuple[str, ...], profile: str, attacks: tuple[str, ...], whole: bool, runs: Path) -> None:
    """Make the zoo entries NAMES from the recipes of the same names.

    A run that is there is taken as it is, and so is its evaluation; what was begun goes on.
    """
    for name in names:
        recipe = kr.recipes.load(name, profile)
        directory = runs / name
        training.train(recipe, directory, resume=True)
        model, trained = kr.zoo.open_model(directory)
        size = len(data.load(recipe.dataset, "test", raw=True).labels)
        kept = {"directory": directory / "headline", "resume": True}
        headline = kr.evaluate(model, recipe.dataset, attacks, examples=min(EXAMPLES, size), **kept)
        kept = {"directory": directory / "whole", "resume": True}
        larger = whole and size > EXAMPLES
        further = [kr.evaluate(model, recipe.dataset, WHOLE, **kept)] if larger else []
        card = kr.zoo.describe(
            model, name, recipe, headline, further=further, seconds=trained.training["seconds"]
        )
        variants = variants_measured(model, recipe, directory, min(EXAMPLES, size))
        kr.zoo.write(ROOT / "zoo" / name, model, replace(card, variants=variants, license="Apache-2.0"))
        for report in (headline, *further):
            console().print(report.table())
            console().print(*report.flags)
        write_pages()


def variants_measured(
    model: Any, recipe: kr.recipes.Recipe, directory: Path, examples: int
) -> dict[str, Any]:
    """The variants of a model with what each that is no plain classifier withstands, by protocol."""
    opened = cache(lambda name: kr.zoo.open_model(f"{directory}:{name}")[0])
    subject = Subject(model, recipe.dataset, recipe.threat, examples, 0, directory, opened)

    def measured(name: str, options: dict[str, Any] | None) -> dict[str, Any] | None:
        found = {
            f"{OF_VARIANTS} {protocol}": round(measures["variant"](subject, name, OF_VARIANTS, protocol), 2)
            for protocol in (PROTOCOLS if options else ())
        }
        return {**options, "results": found} if options else None

    return {name: measured(name, options) for name, options in model.variants.items()}


if __name__ == "__main__":
    make_zoo()
