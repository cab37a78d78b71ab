"""Train, evaluate and keep zoo entries: python tools/make_zoo.py NAME..."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from pages import write_pages

import keras_robust as kr
from keras_robust import data, training
from keras_robust.analysis.detection import EVADING
from keras_robust.cli.output import console
from keras_robust.detection import Detector
from keras_robust.errors import require
from keras_robust.zoo.cards import CARD, Card
from keras_robust.zoo.loading import variant_of

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = 1000  # of the headline: the same for every attack on it
HEADLINE = ("pgd-40", "cw-40", "autoattack", "adaptive-100")
WHOLE = ("pgd-40",)  # also on the whole test set
OF_DETECTORS = "pgd-40"  # judged on, and evaded by
LARGE = 10_000_000  # bytes of weights
KNOWN = 10_000  # training images that make the densities
ON_VARIANTS = ("pgd-20", "autoattack-fast")  # of each further variant, by every protocol


def attack_and_number(text: str) -> tuple[str, int]:
    """An attack and the number of examples it gets, written as `rays:200`."""
    attack, _, number = text.partition(":")
    if not number.isdigit():
        raise click.BadParameter(f"received {text!r}; valid is an attack and a number, such as rays:200.")
    return attack, int(number)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--profile", default="laptop", show_default=True)
@click.option(
    "--attack", "attacks", multiple=True, default=HEADLINE, show_default=True, help="Of the headline."
)
@click.option("--whole/--no-whole", default=True, help=f"Also {', '.join(WHOLE)} on the whole test set.")
@click.option(
    "--further",
    "fewer",
    multiple=True,
    type=attack_and_number,
    metavar="ATTACK:NUMBER",
    help="Also one such as rays:200, an attack on as many examples.",
)
@click.option(
    "--on-variants", multiple=True, default=ON_VARIANTS, show_default=True, help="Of each further variant."
)
@click.option("--detector", "guards", multiple=True, help="Fit one such as er1, and keep it with the model.")
@click.option(
    "--fit-on", default=OF_DETECTORS, show_default=True, help="The attack that detectors learn from."
)
@click.option("--runs", type=click.Path(path_type=Path), default=ROOT / "runs", help="Where runs are kept.")
def make_zoo(
    names: tuple[str, ...],
    profile: str,
    attacks: tuple[str, ...],
    whole: bool,
    fewer: tuple[tuple[str, int], ...],
    on_variants: tuple[str, ...],
    guards: tuple[str, ...],
    fit_on: str,
    runs: Path,
) -> None:
    """Make the zoo entries NAMES from the recipes of the same names.

    An entry of the same recipe is not trained again but evaluated again, and keeps its notes and detectors. A
    run that is there is taken as it is, and so is its evaluation; what was begun goes on.
    """
    for name in names:
        recipe = kr.recipes.load(name, profile)
        directory = runs / name
        model, trained = kept(name, recipe) or newly_trained(recipe, directory)
        for part in (model, *model.companions.values()):
            halve_if_large(part)
        size = len(data.load(recipe.dataset, "test", raw=True).labels)
        resumed = {"directory": directory / "headline", "resume": True}
        shown = variant_of(model, None)
        headline = kr.evaluate(shown, recipe.dataset, attacks, examples=min(EXAMPLES, size), **resumed)
        further = measured_further(shown, recipe, directory, whole and size > EXAMPLES, fewer)
        variants = variants_measured(model, recipe, directory, on_variants, min(EXAMPLES, size))
        seconds = trained.training["seconds"]
        card = kr.zoo.describe(model, name, recipe, headline, further, variants, seconds)
        fitted = detectors_fitted(model, recipe, guards, fit_on)
        judged = {
            name: {"results": detection_measured(model, recipe, guard, fit_on)}
            for name, guard in fitted.items()
        }
        earlier = {
            guard: kr.zoo.detector(ROOT / "zoo" / name, guard)
            for guard in trained.detectors.keys() - fitted.keys()
        }
        described = {**trained.detectors, **judged}
        card = replace(card, detectors=described, license="Apache-2.0", notes=trained.notes, url=trained.url)
        kr.zoo.write(ROOT / "zoo" / name, model, card, {**earlier, **fitted})
        for report in (headline, *further, *(report for _, report in variants.values())):
            console().print(report.table())
            console().print(*report.flags)
        write_pages()


def kept(name: str, recipe: kr.recipes.Recipe) -> tuple[Any, Card] | None:
    """The entry and its card, if there is one of this recipe."""
    entry = ROOT / "zoo" / name
    trained = Card.read(entry / CARD).training if (entry / CARD).exists() else None
    return opened(entry) if (trained or {}).get("digest") == recipe.digest else None


def newly_trained(recipe: kr.recipes.Recipe, directory: Path) -> tuple[Any, Card]:
    """The classifier of a run and its card."""
    training.train(recipe, directory, resume=True)
    return opened(directory)


def opened(directory: Path) -> tuple[Any, Card]:
    """The classifier in a directory, of its variants the plain one, and its card."""
    card = Card.read(directory / CARD)
    plain = next((f":{name}" for name, options in card.variants.items() if not options), "")
    return kr.zoo.open_model(f"{directory}{plain}")


def measured_further(
    model: Any, recipe: kr.recipes.Recipe, directory: Path, whole: bool, fewer: tuple[tuple[str, int], ...]
) -> list[kr.evaluation.Report]:
    """Reports beside the headline: on the whole test set, and of attacks on as many examples as is said."""
    kept = {"directory": directory / "whole", "resume": True}
    further = [kr.evaluate(model, recipe.dataset, WHOLE, **kept)] if whole else []
    for attack, examples in fewer:
        kept = {"directory": directory / f"{attack}-on-{examples}", "resume": True}
        further.append(kr.evaluate(model, recipe.dataset, [attack], examples=examples, **kept))
    return further


def halve_if_large(model: Any) -> None:
    """Give a large model weights that half precision holds, so that what is measured is kept."""
    weights = model.get_weights()
    if sum(weight.nbytes for weight in weights) > LARGE:
        halves = [weight.astype("float16") for weight in weights]
        require(
            all(np.isfinite(half).all() for half in halves), "A weight is beyond what half precision holds."
        )
        model.set_weights(halves)


def variants_measured(
    model: Any, recipe: kr.recipes.Recipe, directory: Path, attacks: tuple[str, ...], examples: int
) -> dict[str, tuple[Any, kr.evaluation.Report]]:
    """The variants of a model that are no plain classifiers, each with what it withstands."""
    found = {}
    for name in (name for name, options in model.variants.items() if options):
        variant = variant_of(model, name)
        kept = {"directory": directory / f"variant-{name}", "resume": True}
        found[name] = variant, kr.evaluate(variant, recipe.dataset, attacks, examples=examples, **kept)
    return found


def detectors_fitted(
    model: Any, recipe: kr.recipes.Recipe, names: tuple[str, ...], fit_on: str
) -> dict[str, Detector]:
    """Detectors that are fit to training images."""
    if not names:
        return {}
    attack = kr.evaluation.attack_named(fit_on, recipe.threat, model)
    shown, known = some(recipe.dataset, "train", EXAMPLES, seed=1), some(recipe.dataset, "train", KNOWN)
    adversarial = attack(model, *shown)
    noisy = kr.detection.matched_noise(shown.images, adversarial, 0)
    return {
        name: kr.detection.detectors[name]().fit(model, shown.images, adversarial, noisy, shown.labels, known)
        for name in names
    }


def some(dataset: str, split: str, at_most: int, seed: int = 0) -> data.Arrays:
    """A random draw of at most so many examples."""
    size = len(data.load(dataset, split, raw=True).labels)
    return data.load(dataset, split, min(at_most, size), seed)


def detection_measured(
    model: Any, recipe: kr.recipes.Recipe, guard: Detector, fit_on: str
) -> dict[str, float]:
    """What a card says of a detector, in percent: on test images, and on those made against it as well."""
    names = dict.fromkeys((OF_DETECTORS, fit_on))
    attacks = {name: kr.evaluation.attack_named(name, recipe.threat, model) for name in names}
    test, evading = some(recipe.dataset, "test", EXAMPLES), attacks[OF_DETECTORS]
    found = kr.analysis.detection(model, test, attacks, {"kept": guard}, adaptive=evading).found
    named = {EVADING: f"{EVADING} {OF_DETECTORS}"}
    metrics = {
        f"{named.get(row.judged_on, row.judged_on)} {key}": value
        for row in found
        for key, value in {**asdict(row.metrics), "roc_auc": 100 * row.roc_auc}.items()
    }
    return {key: round(value, 2) for key, value in metrics.items() if value is not None}


if __name__ == "__main__":
    make_zoo()
