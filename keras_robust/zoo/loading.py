"""From a card to a classifier."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.errors import InputError, require, require_choice, unknown_name
from keras_robust.schema import check_options
from keras_robust.zoo import lookup
from keras_robust.zoo.cards import CARD, Card
from keras_robust.zoo.fetching import fetched
from keras_robust.zoo.weights import load_into

if TYPE_CHECKING:
    import keras

    from keras_robust.detection import Detector
    from keras_robust.models import LatentClassifier

# What a defense declares of the classifier it trains, kept in its card.
DECLARED = ("adaptive", "variants", "companions")


def load(name: str, variant: str | None = None) -> keras.Model:
    """A classifier from the zoo, in float32; its weights are fetched if they are not packaged.

    Args:
        name: an entry's name, see `list`.
        variant: one of the card's variants; None: its default.

    Returns:
        `keras.Model`: float32 images in [0, 1] `(B, H, W, C)` to logits `(B, K)`; a `LatentClassifier` unless
        a variant wraps it. Its `card` is the entry's.

    Raises:
        InputError: unknown name or variant, or a card or weights file that cannot be used.

    >>> load("at_digits").output_shape
    (None, 10)
    """
    return _rebuilt(lookup.directory(name), lookup.card(name), variant)


def detector(reference: str | os.PathLike[str], name: str) -> Detector:
    """A detector of adversarial inputs that is kept with a classifier, fetched if it is not packaged.

    Args:
        reference: of the classifier: a name in the zoo, or a directory with a card.
        name: one of the names in the card's `detectors`.

    Raises:
        InputError: no such model, no detector of this name, or a file that cannot be used.

    >>> import keras_robust as kr, tempfile
    >>> model, place = kr.zoo.load("at_digits"), tempfile.mkdtemp()
    >>> images, labels = kr.data.load("digits", "test", examples=200, seed=0)
    >>> guard = kr.detection.ERDetector(bandwidth=0.5).fit(model, images, 1 - images, labels=labels)
    >>> card = kr.zoo.write(place, model, kr.zoo.describe(model, "mine"), {"er1": guard})
    >>> detector(place, "er1").bandwidth
    0.5
    """
    from keras_robust import detection

    kind, directory, _ = lookup.resolve(reference)
    require(kind in ("zoo", "directory"), f"{directory} has no card that could name a detector.")
    card = lookup.card(directory.name) if kind == "zoo" else Card.read(directory / CARD)
    require_choice(f"detector of {card.name}", name, card.detectors)
    return detection.load(fetched(directory, card.files[name]))


def open_model(reference: str | os.PathLike[str]) -> tuple[keras.Model, Card | None]:
    """The model that a name or path stands for, and its card if it has one.

    Args:
        reference: a name in the zoo or a directory with a card (a run, or what `save` wrote), either with
            ":variant" behind it, or a `.keras` file, which is loaded in Keras' safe mode and without its
            training state.

    Raises:
        InputError: no model there, an export (`load_exported` reads it), or a file that cannot be used.

    >>> import keras_robust as kr, tempfile
    >>> kept = kr.zoo.save(kr.models.build("small_cnn"), "mine", directory=tempfile.mkdtemp())
    >>> model, card = open_model(kept)
    >>> card.name, model.output_shape
    ('mine', (None, 10))
    """
    kind, path, variant = lookup.resolve(reference)
    if kind == "keras":
        return _keras_file(path), None
    if kind in ("zoo", "directory"):
        card = lookup.card(path.name) if kind == "zoo" else Card.read(path / CARD)
        return _rebuilt(path, card, variant), card
    raise InputError(
        f"{path} is an export, which gives labels but no gradients. Valid here: a name in the zoo, a "
        "directory with a card, or a .keras file."
    )


def build(card: Card, dtype: str = "float32") -> LatentClassifier:
    """The untrained classifier of a card's architecture.

    Raises:
        InputError: an architecture or option that does not exist.
    """
    from keras_robust import models

    of_all = inspect.signature(models.build).parameters  # what every architecture takes
    options = {key: value for key, value in card.architecture.items() if key not in of_all}
    builder = models.architectures[card.architecture["name"]]
    check_options(f"{card.name}: architecture", options, builder, supplied=("dtype",))
    return models.build(dtype=dtype, **card.architecture)


def _rebuilt(directory: Path, card: Card, variant: str | None) -> keras.Model:
    wrapper = _wrapper(card, variant)
    classifier = build(card)
    load_into(classifier, fetched(directory, card.files["model"]))
    _check_adaptive(card)
    companions = {kind: _companion(directory, card, kind) for kind in card.companions}
    known = {"adaptive": card.adaptive, "variants": card.variants, "companions": companions}
    _declare(classifier, card=card, **known)
    return variant_of(classifier, variant) if wrapper else classifier


def variant_of(classifier: LatentClassifier, variant: str | None) -> keras.Model:
    """A variant of a classifier that was opened; None: its default."""
    model = shown(classifier.card, classifier, variant)
    known = {name: getattr(classifier, name) for name in ("card", *DECLARED)}
    return _declare(model, **known, variant=variant or "")


def shown(card: Card, classifier: LatentClassifier, variant: str | None = None) -> keras.Model:
    """What a variant of a card makes of its classifier, opened or not; None: its default."""
    wrapper = _wrapper(card, variant)
    return _wrapped(classifier, classifier.companions, wrapper) if wrapper else classifier


def _declare(model: keras.Model, **known: Any) -> keras.Model:
    for name, value in known.items():
        object.__setattr__(model, name, value)  # past Keras' attribute tracking
    return model


def _wrapper(card: Card, variant: str | None) -> dict[str, Any] | None:
    """What a variant wraps the classifier in; None for the classifier as it is."""
    if variant is None:
        variant = next(iter(card.variants), None)
    elif variant not in card.variants:
        raise unknown_name(f"variant of {card.name}", variant, card.variants)
    chosen = card.variants[variant] if variant else None
    return chosen["wrapper"] if chosen else None


def _wrapped(
    classifier: LatentClassifier, companions: dict[str, keras.Model], wrapper: dict[str, Any]
) -> keras.Model:
    from keras_robust.models import wrappers

    options = {key: value for key, value in wrapper.items() if key != "name"}
    wrap = wrappers[wrapper.get("name", "")]
    check_options(f"wrapper {wrapper['name']}", options, wrap, supplied=("model", *companions))
    return wrap(classifier, **companions, **options)


def _companion(directory: Path, card: Card, kind: str) -> keras.Model:
    from keras_robust.models import companions

    architecture = card.companions[kind]["architecture"]
    try:
        built = companions[kind](**architecture)
    except TypeError as error:
        raise InputError(f"{card.name}: companions: {kind}: architecture: {error}") from error
    load_into(built, fetched(directory, card.files[kind]))
    return built


def _check_adaptive(card: Card) -> None:
    from keras_robust.attacks import get_objective

    for objective in card.adaptive:
        try:
            get_objective(objective)
        except InputError as error:
            raise InputError(f"{card.name}: adaptive: {error}") from error


def _keras_file(path: Path) -> keras.Model:
    import keras

    from keras_robust import models  # noqa: F401  (its classes register themselves)

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive surfaces as nearly any exception
        raise InputError(f"{path} cannot be loaded as a Keras model: {error}") from error
