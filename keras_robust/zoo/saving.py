"""From a classifier to an entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from keras_robust.errors import InputError, require, require_choice
from keras_robust.files import replacing, user_path, write_weights
from keras_robust.packaged import packaged
from keras_robust.zoo.cards import CARD, WORST_CASE, Card, check_name
from keras_robust.zoo.loading import DECLARED, build, shown
from keras_robust.zoo.lookup import user_directory
from keras_robust.zoo.weights import sha256_and_size

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_robust.detection import Detector
    from keras_robust.evaluation import Report
    from keras_robust.models import LatentClassifier
    from keras_robust.recipes import Recipe


def save(
    classifier: LatentClassifier,
    name: str,
    recipe: Recipe | None = None,
    report: Report | None = None,
    directory: Path | str | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Keep a classifier as an entry: a card, its weights, and those of its companions.

    Args:
        classifier: built by `models.build` (or a recipe).
        name: the entry's name.
        recipe: what trained it.
        report: what `evaluate` found of the classifier, or of the variant that its name stands for (an
            ensemble, if it was trained for one).
        directory: where entries lie; default: the user's zoo, where `load(name)` finds it.
        overwrite: replace an entry of this name.

    Returns:
        The entry's directory, `<directory>/<name>`, with `card.yaml` and `model.weights.h5`.

    Raises:
        InputError: a classifier that was not built by name, a bad or taken name, a report of another
            classifier or variant or of a part of the examples, or a place that cannot be written.

    >>> import keras_robust as kr, tempfile
    >>> path = save(kr.models.build("small_cnn"), "mine", directory=tempfile.mkdtemp())
    >>> sorted(file.name for file in path.iterdir())
    ['card.yaml', 'model.weights.h5']
    """
    check_name("zoo.save", name)
    entry = user_path(user_directory() if directory is None else directory) / name
    require(
        directory is not None or not (packaged("zoo") / name).exists(),
        f"{name} is a packaged entry, which would hide yours. Choose another name.",
    )
    require(
        overwrite or not (entry / CARD).exists(),
        f"{entry} is an entry already. Pass overwrite=True, or choose another name.",
    )
    write(entry, classifier, describe(classifier, name, recipe, report))
    return entry


def describe(
    classifier: LatentClassifier,
    name: str,
    recipe: Recipe | None = None,
    report: Report | None = None,
    further: Sequence[Report] = (),
    variants: Mapping[str, tuple[keras.Model, Report]] = MappingProxyType({}),
    seconds: float | None = None,
) -> Card:
    """The card of a classifier, all but the file's sha256 and size, which `write` fills in.

    `dataclasses.replace` sets the other fields: `paper`, `license`, `notes`, `url`.

    Args:
        classifier, name, recipe, report: as in `save`.
        further: reports on other sets of examples.
        variants: variants of the classifier by name, each with a report on it.
        seconds: how long the training took.

    Raises:
        InputError: a classifier that was not built by name.

    >>> import keras_robust as kr
    >>> describe(kr.models.build("small_cnn", filters=4), "mine").architecture["filters"]
    4
    """
    built_of = getattr(classifier, "architecture", None)
    if built_of is None:
        raise InputError(
            "Only a classifier built by kr.models.build can be kept as an entry. Received: "
            f"{type(classifier).__name__}. Keep others with model.save('name.keras')."
        )
    shapes = {
        "input_shape": list(classifier.input_shape[1:]),
        "num_classes": classifier.output_shape[-1],
    }
    declared = {name: getattr(classifier, name) for name in DECLARED if hasattr(classifier, name)}
    beside = declared.pop("companions", {})
    companions = {kind: {"architecture": model.architecture} for kind, model in beside.items()}
    card = Card(name=name, architecture={**built_of, **shapes}, companions=companions, **declared)
    if recipe is not None:
        card = replace(card, **_trained(recipe, seconds))
    model = shown(card, classifier)
    for measured in filter(None, (report, *further)):
        _check_whole(name, model, measured)
    if report is not None:
        # Of examples without a name it does not say the dataset.
        card = replace(card, dataset=report.dataset or card.dataset, threat=dict(report.threat))
        card = replace(card, **_measured(card, model, report))
    return replace(
        card,
        further=[_further(card, model, other) for other in further],
        variants={**card.variants, **{key: _variant(card, key, *of) for key, of in variants.items()}},
    )


def write(
    directory: Path | str,
    classifier: LatentClassifier,
    card: Card,
    detectors: Mapping[str, Detector] | None = None,
) -> Card:
    """Write `card.yaml`, the weights and detectors into `directory`; old ones stay until all are whole.

    Args:
        directory: exactly where; made if it is missing.
        classifier: of the architecture on the card, in any dtype policy; kept in float32, or in float16 if
            that holds every weight as it is.
        card: its card; the `sha256` and `size` of every file are filled in.
        detectors: detectors that were fit to the classifier, by the name of their file, at least those that
            the card names; what it says of them stays.

    Returns:
        The card as written.

    Raises:
        InputError: the card does not describe the classifier, or the place cannot be written.
    """
    from keras_robust import detection

    directory = Path(directory)
    guards = detectors or {}
    require(
        card.detectors.keys() <= guards.keys(),
        f"{card.name}: the card names the detectors {sorted(card.detectors)}. Received: {sorted(guards)}.",
    )
    kept = {"model": _kept(classifier, card), **getattr(classifier, "companions", {})}
    require(
        kept.keys() == {"model", *card.companions},
        f"{card.name}: the card names the companions {sorted(card.companions)}; the classifier has "
        f"{sorted(kept.keys() - {'model'})}.",
    )
    # The weights take their place before the card; nothing can fail in between.
    with replacing(directory / CARD) as card_draft, ExitStack() as drafts:
        pins = {}
        for kind, model in kept.items():
            draft = drafts.enter_context(replacing(directory / f"{kind}.weights.h5"))
            write_weights(model, draft)
            pins[kind] = sha256_and_size(draft)
        companions = {kind: {**found, **pins[kind]} for kind, found in card.companions.items()}
        fitted = {}
        for name, detector in guards.items():
            draft = drafts.enter_context(replacing(directory / f"{name}.npz"))
            fitted[name] = {
                **card.detectors.get(name, {}),
                **sha256_and_size(detection.save(detector, draft)),
            }
        card = replace(card, companions=companions, detectors=fitted, **pins["model"])
        card.write(card_draft)
    return card


def _kept(classifier: LatentClassifier, card: Card) -> LatentClassifier:
    """The classifier in the precision of its file."""
    weights = classifier.get_weights()
    kept = build(card, "float16" if all(map(_fits_half, weights)) else "float32")
    require(
        [weight.shape for weight in kept.weights] == [weight.shape for weight in weights],
        f"{card.name}: the classifier is not of the architecture on its card. Received: {card.architecture}.",
    )
    kept.set_weights(weights)
    return kept


def _fits_half(weight: np.ndarray) -> bool:
    import numpy as np

    with np.errstate(over="ignore"):
        half = weight.astype("float16")
    return bool(np.all(weight.astype("float32") == half.astype("float32")))


def _trained(recipe: Recipe, seconds: float | None) -> dict[str, Any]:
    return {
        "description": recipe.description,
        "dataset": recipe.dataset,
        "defense": recipe.defense["name"],
        "threat": dict(recipe.threat),
        "training": {
            "recipe": recipe.name,
            "profile": recipe.profile,
            "epochs": recipe.epochs,
            "seed": recipe.seed,
            "digest": recipe.digest,
            "seconds": seconds,
        },
        "paper": recipe.paper,
    }


def _check_whole(name: str, model: keras.Model, report: Report) -> None:
    """Refuse a report of another model, or of a part of the examples."""
    from keras_robust.evaluation.identity import identity

    require(
        not report.shard, f"{name}: the report is of shard {report.shard} alone; merge all of them first."
    )
    told = {key: value for key, value in report.digests.items() if key != "data"}
    require(
        not told or told == identity(model),
        f"{name}: the report is of other weights or layers than the classifier has, or of another variant "
        "than its name stands for. Evaluate it again.",
    )


def _measured(card: Card, model: keras.Model, report: Report) -> dict[str, Any]:
    return {
        "flags": list(report.flags),
        "results": _results(report),
        "evaluation": {
            "examples": report.examples,
            "seed": report.seed,
            "versions": dict(report.versions),
            "stages": _stages(report),
            "command": _command(card, model, report),
        },
    }


def _stages(report: Report) -> dict[str, dict[str, float]]:
    """Accuracy after each stage of the attacks that have stages."""
    return {
        name: _rounded({stage: found.accuracy for stage, found in outcome.stages.items()})
        for name, outcome in report.outcomes.items()
        if outcome.stages
    }


def _variant(card: Card, variant: str, model: keras.Model, report: Report) -> dict[str, Any]:
    """What a card says of a variant that was evaluated."""
    wrapped = {name: options for name, options in card.variants.items() if options}
    require_choice(f"wrapped variant of {card.name}", variant, wrapped)
    called = replace(card, name=f"{card.name}:{variant}")
    _check_whole(called.name, model, report)
    return {**wrapped[variant], **_further(called, model, report), "results": _results(report)}


def _further(card: Card, model: keras.Model, report: Report) -> dict[str, Any]:
    flags = {"flags": list(report.flags)} if report.flags else {}
    results = _rounded(_counted(report))
    command = _command(card, model, report)
    return {"examples": report.examples, "results": results, "command": command, **flags}


def _counted(report: Report) -> dict[str, float]:
    """Accuracy under the attacks that keep to the report's threat model."""
    return {name: outcome.accuracy for name, outcome in report.outcomes.items() if outcome.counted}


def _results(report: Report) -> dict[str, float]:
    """Accuracy under each of these attacks, and under all of them."""
    worst = {} if report.worst_case is None else {WORST_CASE: report.worst_case}
    return _rounded({**_counted(report), **worst})


def _rounded(results: dict[str, float]) -> dict[str, float]:
    return {attack: round(accuracy, 2) for attack, accuracy in results.items()}


def _command(card: Card, model: keras.Model, report: Report) -> str | None:
    """The command that repeats a report; None if attacks or examples have no name that it could use."""
    from keras_robust.evaluation.protocols import asked_for

    attacks = asked_for(report.outcomes)
    if not report.dataset or not _are_named(attacks, model, report):
        return None
    said = [f"--attack {attack}" for attack in attacks]
    usual = {"dataset": card.dataset, "batch": 128, **{key: (card.threat or {}).get(key) for key in _BALL}}
    asked = {"dataset": report.dataset, "batch": report.batch_size}
    asked |= {key: report.threat.get(key) for key in _BALL}
    asked = {key: value for key, value in asked.items() if value not in (None, usual[key])}
    said += [f"--{key.replace('_', '-')} {value}" for key, value in asked.items()]
    return f"krobust evaluate {card.name} {' '.join(said)} --examples {report.examples} --seed {report.seed}"


_BALL = ("norm", "eps", "step_size")


def _are_named(attacks: list[str], model: keras.Model, report: Report) -> bool:
    """Whether `krobust evaluate` takes the names for the attacks that the report is of."""
    from keras_robust.evaluation.naming import named_attacks, settings
    from keras_robust.evaluation.protocols import by_protocol

    try:
        named = by_protocol(named_attacks(attacks, report.threat, model), model)
    except InputError:
        return False
    stated = {name: settings(attack) if attack else {} for name, attack in named.items()}
    return stated == {name: outcome.options for name, outcome in report.outcomes.items()}
