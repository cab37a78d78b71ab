"""Where entries lie, and what a model's name or path stands for."""

from __future__ import annotations

import builtins
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from keras_robust.errors import InputError, require, require_choice, unknown_name
from keras_robust.files import user_path
from keras_robust.packaged import packaged
from keras_robust.zoo.cards import CARD, Card


class Reference(NamedTuple):
    """What a model's name or path stands for.

    Attributes:
        kind: "zoo" (an entry by name), "directory" (one that holds a card: a run, or what `save` wrote),
            "keras" (a `.keras` file), "saved_model" or "tflite" (exports).
        path: the entry's directory, or the file.
        variant: what stood behind the colon, or None.
    """

    kind: str
    path: Path
    variant: str | None = None


def user_directory() -> Path:
    """Where the user's own entries lie: KERAS_ROBUST_ZOO, else among the user's data."""
    chosen = os.environ.get("KERAS_ROBUST_ZOO")
    return user_path(chosen) if chosen else platformdirs.user_data_path("keras_robust") / "zoo"


def names() -> builtins.list[str]:
    """Names of all entries, packaged and the user's own.

    >>> "at_mnist" in names()
    True
    """
    return sorted(_directories())


def directory(name: str) -> Path:
    """The directory of an entry."""
    directories = _directories()
    require_choice("model in the zoo", name, directories)
    return directories[name]


def card(name: str) -> Card:
    """The card of an entry.

    Raises:
        InputError: unknown name, or a card that cannot be used.

    >>> card("at_digits").dataset
    'digits'
    """
    path = directory(name) / CARD
    found = Card.read(path)
    require(
        found.name == name,
        f"{path}: name must be that of its directory, {name!r}. Received: {found.name!r}.",
    )
    return found


def list(
    dataset: str | None = None,
    defense: str | None = None,
    architecture: str | None = None,
    norm: str | None = None,
) -> builtins.list[Card]:
    """Cards of all entries, sorted by name, or of those that match every filter given.

    Args:
        dataset, defense, architecture: names as in the registries.
        norm: norm of the threat model, "linf" or "l2".

    Raises:
        InputError: a filter's value that is no registered name, or a packaged card that cannot be used; one
            among the user's is left out with a warning.

    >>> all(card.dataset == "digits" for card in list(dataset="digits"))
    True
    """
    cards = [usable for name in names() if (usable := _usable(name)) is not None]
    wanted = {"dataset": dataset, "defense": defense, "architecture": architecture, "norm": norm}
    filters = {key: value for key, value in wanted.items() if value is not None}
    for key, value in filters.items():
        found = {had for entry in cards if (had := _properties(entry)[key]) is not None}
        if value not in found and value not in (known := _registered(key)):
            raise unknown_name(f"{key} in the zoo", value, found | known)
    return [entry for entry in cards if filters.items() <= _properties(entry).items()]


def _usable(name: str) -> Card | None:
    """The card of an entry; None, and a warning, if it is the user's and cannot be used."""
    try:
        return card(name)
    except InputError as error:
        if directory(name).parent == packaged("zoo"):
            raise
        warnings.warn(f"{error} The entry is left out.", stacklevel=3)
        return None


def resolve(reference: str | os.PathLike[str]) -> Reference:
    """What a model's name or path stands for, either with ":variant" behind it.

    A name in the zoo goes before a path.

    Raises:
        InputError: neither a name in the zoo nor the path of a model, or a variant of what has no card.

    >>> found = resolve("atld_cifar10:imt")
    >>> found.kind, found.variant
    ('zoo', 'imt')
    """
    text = os.fspath(reference)
    before, colon, variant = text.rpartition(":")
    for name, chosen in ((text, None), (before, variant)) if colon else ((text, None),):
        if (found := _resolved(name)) is not None:
            require(
                chosen is None or found.kind in ("zoo", "directory"),
                f"Only what has a card has variants. Received: {text}.",
            )
            return found._replace(variant=chosen)
    path = user_path(text)
    if path.exists():
        raise InputError(
            f"There is no model at {path}. Valid: a directory with {CARD} (a run gets it when its training "
            "ends), a .keras file, a SavedModel, a .tflite file."
        )
    raise unknown_name("model (neither in the zoo nor a path)", text, _directories())


def _resolved(text: str) -> Reference | None:
    if text in (directories := _directories()):
        return Reference("zoo", directories[text])
    path = user_path(text)
    return next((Reference(kind, path) for kind, fits in _KINDS.items() if fits(path)), None)


_KINDS = {
    "directory": lambda path: (path / CARD).is_file(),
    "saved_model": lambda path: (path / "saved_model.pb").is_file(),
    "keras": lambda path: path.suffix == ".keras" and path.is_file(),
    "tflite": lambda path: path.suffix == ".tflite" and path.is_file(),
}


def _registered(key: str) -> set[str]:
    """What a filter may name though no entry has it; looked up only then, for it imports TensorFlow."""
    from keras_robust import data, defenses, models
    from keras_robust.threat import NORMS

    known: dict[str, Any] = {
        "dataset": data.datasets,
        "defense": defenses.defenses,
        "architecture": models.architectures,
        "norm": NORMS,
    }
    return set(known[key])


def _properties(entry: Card) -> dict[str, str | None]:
    return {
        "dataset": entry.dataset,
        "defense": entry.defense,
        "architecture": entry.architecture["name"],
        "norm": entry.norm,
    }


def _directories() -> dict[str, Path]:
    """Entries by name; a packaged one goes before the user's of the same name."""
    places = (user_directory(), packaged("zoo"))
    return {path.parent.name: path.parent for place in places for path in place.glob(f"*/{CARD}")}
