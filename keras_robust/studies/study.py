"""What a paper's table or figure is made of, read from a file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_robust.errors import InputError, require, require_choice, unknown_name
from keras_robust.packaged import packaged
from keras_robust.recipes import PROFILES, Recipe, merged, read
from keras_robust.recipes import load as load_recipe
from keras_robust.schema import check_options
from keras_robust.studies.measures import check_measure


def names() -> list[str]:
    """Names of the packaged studies, "system/table".

    >>> "adr/table1" in names()
    True
    """
    place = packaged("recipes") / "studies"
    found = (path.relative_to(place).with_suffix("").as_posix() for path in place.rglob("*.yaml"))
    return sorted(found, key=_numbered)


def _numbered(name: str) -> list[str | int]:
    """Sorts figure2 before figure10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def describe(name: str) -> str:
    """The title of a study.

    Raises:
        InputError: an unknown name.

    >>> describe("adr/table1")
    "ADR's terms one after another on MNIST (ADR, Table 1)"
    """
    return str(_text(name).get("title", ""))


def load(name: str, profile: str = "laptop") -> Study:
    """Read and check a study.

    Args:
        name: a packaged study's name, such as "adr/table1", or the path of a YAML file.
        profile: "paper", "laptop" or "smoke": that of the recipes, and of what the study says for it.

    Raises:
        InputError: unknown name or profile, or a study that says something it cannot; it names the place.

    >>> load("adr/table1").columns["PGD-40"]["attack"]
    'pgd-40'
    """
    require_choice("profile", profile, PROFILES)
    text = _text(name)
    profiles = _mapping(f"{name}: profiles", text.pop("profiles", None))
    for key in profiles:
        require_choice(f"profile of {name}", key, PROFILES)
    settings = merged(text, _mapping(f"{name}: profiles: {profile}", profiles.get(profile)))
    check_options(name, settings, Study, supplied=("name", "profile"))
    study = Study(name=name, profile=profile, **settings)
    study.check()
    return study


def _mapping(where: str, value: Any) -> dict[str, Any]:
    """What must be a mapping; empty for none."""
    require(value is None or isinstance(value, dict), f"{where} must be a mapping. Received: {value!r}.")
    return value or {}


def _text(name: str) -> dict[str, Any]:
    path = (
        Path(name) if name.endswith((".yaml", ".yml")) else packaged("recipes") / "studies" / f"{name}.yaml"
    )
    if not path.is_file():
        raise unknown_name("study", name, names())
    return read(path)


@dataclass(frozen=True)
class Study:
    """A table of models against measures, and what the paper printed in it.

    A row and a column together say what a cell is: which `recipe` trains the model, with `set` as its
    overrides, and which `measure` is taken of it, with the measure's options; `source` is the recipe of a
    second model, for a measure that needs two. A column's `where` fills the braces in recipes. A row
    without a recipe is a method that is not built here: its figures are the paper's alone.

    Attributes:
        name, profile: as given to `load`.
        title: what the paper's table or figure shows.
        source: paper, table, and what else was read there.
        rows, columns: settings by name, in the paper's order.
        defaults: settings that hold where neither row nor column says otherwise.
        paper: the paper's figures, `{row: {column: figure}}`.
        examples: test images that every measure is taken on, drawn with the seed.
        seeds: of training and measuring, each a repetition of the whole.
        curves: whether the columns are points of curves, one for each row, named by numbers.
        notes: what a reader must know.
    """

    name: str
    profile: str
    title: str
    source: str
    rows: dict[str, Any]
    columns: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] = field(default_factory=dict)
    examples: int = 1000
    seeds: list[int] = field(default_factory=lambda: [0])
    curves: dict[str, Any] | None = None
    notes: str = ""

    @property
    def directory(self) -> Path:
        """Where its results lie, relative to what is trained and measured for it."""
        parts = Path(self.name).with_suffix("").parts
        return Path("studies", *(part for part in parts if part not in ("/", "..")), self.profile)

    def check(self) -> None:
        """Check every row, column and figure against what it names."""
        require(bool(self.rows and self.columns and self.seeds), f"{self.name}: no rows, columns or seeds.")
        require(self.examples >= 1, f"{self.name}: examples must be >= 1. Received: {self.examples}.")
        self._check_figures()
        trained: set[str] = set()  # of cells that were checked already: most of a row has one model
        for row, column in self.places():
            try:
                self._check_cell(row, column, trained)
            except InputError as error:
                raise InputError(f"{self.name}: {row}, {column}: {error}") from error

    def _check_figures(self) -> None:
        of = f"the paper's figures of {self.name}"
        for row, figures in self.paper.items():
            require_choice(f"row in {of}", row, self.rows)
            for column, figure in _mapping(f"{of}: {row}", figures).items():
                require_choice(f"column in {of}", column, self.columns)
                require(
                    isinstance(figure, (int, float)),
                    f"{of}: {row}, {column} must be a number. Received: {figure!r}.",
                )

    def places(self) -> Iterable[tuple[str, str]]:
        """Every row with every column."""
        return itertools.product(self.rows, self.columns)

    def cell(self, row: str, column: str) -> Measurement | None:
        """What is measured in a cell; None for a row that is only quoted."""
        return self._cells[row, column]

    def figure(self, row: str, column: str) -> float | None:
        """The paper's figure."""
        return self.paper.get(row, {}).get(column)

    def _check_cell(self, row: str, column: str, trained: set[str]) -> None:
        cell = self.cell(row, column)
        if cell is None:
            return
        check_measure(cell.measure, cell.options, models=len(cell.named))
        if (models := f"{cell.named} {cell.overrides}") not in trained:
            cell.recipes(self.profile, self.seeds[0])
            trained.add(models)

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Measurement | None]:
        return {
            (row, column): self._measurement(
                _mapping(f"row {row}", self.rows[row]), _mapping(f"column {column}", self.columns[column])
            )
            for row, column in self.places()
        }

    def _measurement(self, row: dict[str, Any], column: dict[str, Any]) -> Measurement | None:
        settings = merged(merged(self.defaults, row), column)
        if "recipe" not in settings:
            return None
        where, measure = _mapping("where", settings.pop("where", None)), settings.pop("measure", "accuracy")
        named = [_filled(settings.pop(key), where) for key in ("recipe", "source") if key in settings]
        return Measurement(named, _mapping("set", settings.pop("set", None)), measure, settings)


def _filled(recipe: Any, where: Mapping[str, Any]) -> str:
    """The name of a recipe, with what `where` says in the place of braces."""
    require(isinstance(recipe, str), f"a recipe is given by its name. Received: {recipe!r}.")
    try:
        return recipe.format(**where)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"where says nothing of what stands in braces in {recipe!r}. Received: {dict(where)}."
        ) from error


@dataclass(frozen=True)
class Measurement:
    """What is measured in a cell: a measure with its options, on models by the recipes that train them."""

    named: list[str]
    overrides: dict[str, Any]
    measure: str
    options: dict[str, Any]

    def recipes(self, profile: str, seed: int) -> list[Recipe]:
        """The recipe of the model, and that of the second one if there is one."""
        return [load_recipe(name, profile, {"seed": seed, **self.overrides}) for name in self.named]
