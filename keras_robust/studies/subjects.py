"""The models of a study: taken from the zoo if it has them, else trained, once for all studies."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from keras_robust import data, training, zoo
from keras_robust.recipes import Recipe
from keras_robust.studies.results import NOT_TRAINED
from keras_robust.zoo.cards import CARD, Card


class Missing(Exception):
    """Nothing can be measured; the message says why."""


@dataclass(frozen=True)
class Shelf:
    """Models by recipe.

    Attributes:
        directory: where they are trained and kept, each in `<recipe>-<digest>`.
        train: whether to train what is missing.
        progress: show the progress of a training.
        found: where models lie, by the digest of their recipe.
    """

    directory: Path
    train: bool = True
    progress: bool = True
    found: dict[str, Path] = field(default_factory=dict)

    def place(self, recipe: Recipe) -> Path:
        """The directory with the card and weights of the classifier that a recipe trains.

        Raises:
            Missing: the dataset is absent, or the model is not trained and must not be.
        """
        if recipe.digest not in self.found:
            self.found[recipe.digest] = self._place(recipe)
        return self.found[recipe.digest]

    def _place(self, recipe: Recipe) -> Path:
        if not data.info(recipe.dataset).splits:
            raise Missing("dataset absent")
        for card in zoo.list():
            if (card.training or {}).get("digest") == recipe.digest:
                return zoo.lookup.directory(card.name)
        directory = self.directory / f"{recipe.name}-{recipe.digest}"
        if not (directory / CARD).exists():
            if not self.train:
                raise Missing(NOT_TRAINED)
            training.train(recipe, directory, resume=True, verbose="auto" if self.progress else 0)
        return directory

    def card(self, recipe: Recipe) -> Card:
        """The card of the classifier that a recipe trains."""
        return Card.read(self.place(recipe) / CARD)

    def model(self, recipe: Recipe, variant: str | None = None) -> Any:
        """The float32 classifier that a recipe trains, or a variant of it."""
        return _opened(self.place(recipe), variant, self.card(recipe).sha256)


@lru_cache(maxsize=8)
def _opened(place: Path, variant: str | None, sha256: str) -> Any:
    """The model in a directory; the last ones are kept, so that what is compiled for them serves again."""
    return zoo.open_model(place if variant is None else f"{place}:{variant}")[0]
