"""Writes the pages that are made of data: those of the zoo, the recipes and the studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from keras_robust import recipes, studies, zoo
from keras_robust.packaged import packaged
from keras_robust.recipes import PROFILES
from keras_robust.studies.results import RESULTS, Results

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def zoo_page() -> str:
    """The model table and a paragraph on each model."""
    cards = [card for card in zoo.list() if (packaged("zoo") / card.name).is_dir()]
    attacks = dict.fromkeys(attack for card in cards for attack in card.results)
    attacks.pop("worst_case", None)
    return _render("zoo.md", cards=cards, attacks=list(attacks), cell=_cell, listed=_listed)


def recipes_page() -> str:
    """The table of recipes."""
    presets = {name: [recipes.load(name, profile) for profile in PROFILES] for name in recipes.names()}
    return _render("recipes.md", presets=presets, profiles=PROFILES)


def studies_page() -> str:
    """The list of studies, and the published results."""
    titles = {name: studies.describe(name) for name in studies.names()}
    found = {name: packaged("recipes") / "studies" / name / RESULTS for name in titles}
    results = {name: Results.read(path) for name, path in found.items() if path.exists()}
    return _render("studies.md", titles=titles, results=results)


def write_pages() -> list[Path]:
    """Write the pages and return their paths."""
    pages = {
        packaged("zoo") / "README.md": zoo_page(),
        packaged("recipes") / "README.md": recipes_page(),
        packaged("recipes") / "studies" / "README.md": studies_page(),
    }
    for path, text in pages.items():
        path.write_text(text)
    return list(pages)


def _cell(card: zoo.Card, attack: str) -> str:
    quoted = (card.paper or {}).get("results", {}).get(attack)
    measured = card.results.get(attack)
    return ("" if measured is None else f"{measured:.1f}") + ("" if quoted is None else f" / {quoted}")


def _listed(results: Mapping[str, float]) -> str:
    return ", ".join(f"{attack} {value:.2f}" for attack, value in results.items())


def _render(template: str, **values: object) -> str:
    pages = Environment(loader=FileSystemLoader(_TEMPLATES), keep_trailing_newline=True, autoescape=False)
    return pages.get_template(template).render(**values).rstrip() + "\n"


if __name__ == "__main__":
    for written in write_pages():
        print(written)
