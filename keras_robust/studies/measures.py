"""What a study measures of a model: one number for a cell, and files where a number says too little."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.data import load
from keras_robust.errors import require, require_choice
from keras_robust.registry import Registry
from keras_robust.schema import check_options
from keras_robust.versions import versions

if TYPE_CHECKING:
    import keras

    from keras_robust.attacks import Attack
    from keras_robust.evaluation import Outcome


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        model: float32 classifier.
        dataset: its dataset's name.
        threat: `{"norm": ..., "eps": ..., "step_size": ...}` of its recipe.
        examples: how many test images to measure on.
        seed: of the images and of all that is random.
        directory: where the measure keeps what it found so far, and leaves pictures and their data.
        variant: gives the model's variants by name.
        progress: show the progress of an attack.
    """

    model: keras.Model
    dataset: str
    threat: Mapping[str, Any]
    examples: int
    seed: int
    directory: Path
    variant: Callable[[str], keras.Model]
    progress: bool = True


measures: Registry[Callable[..., float]] = Registry("measure")


def check_measure(name: str, options: Mapping[str, Any], models: int = 1) -> None:
    """Refuse an unknown measure, options that it does not take, or a source where it takes none."""
    measure = measures[name]
    given = ("subject", "source")[:models]
    require(
        set(given) <= set(inspect.signature(measure).parameters),
        f"The measure {name} is taken of one model and has no source.",
    )
    check_options(f"measure {name}", options, measure, supplied=given)


@measures.register("accuracy")
def accuracy(
    subject: Subject,
    attack: str | dict[str, Any] = "clean",
    eps: float | None = None,
    norm: str | None = None,
    step_size: float | None = None,
) -> float:
    """Share of the examples that stand after an attack, in percent.

    Args:
        subject: what is measured.
        attack: a short name, or `{"name": ..., **options}`.
        eps, norm, step_size: the threat model, where it is not the recipe's.
    """
    return _attacked(subject, attack, eps, norm, step_size).accuracy


SEPARATION = "separation"  # as a loss: what the discriminator beside the model tells apart
PROTOCOLS = ("grey_box", "end_to_end", "worst_case")


@measures.register("variant")
def variant(
    subject: Subject,
    name: str,
    attack: str | dict[str, Any],
    protocol: str = "worst_case",
    eps: float | None = None,
) -> float:
    """Accuracy in percent of a variant of the model, such as one that transforms its input, under an attack.

    Args:
        subject: what is measured.
        name: of the variant.
        attack: as in `accuracy`.
        protocol: "grey_box": images made on the default variant are shown to this one, whose attacker does
            not know of it; "end_to_end": they are made on this one, in all ways that `evaluate` knows;
            "worst_case": both.
        eps: the radius, where it is not the recipe's.
    """
    require_choice("protocol", protocol, PROTOCOLS)
    threat = {**subject.threat, "eps": subject.threat["eps"] if eps is None else eps}
    *single, _ = PROTOCOLS
    shown = subject.variant(name)
    stand = [
        _standing(replace(subject, model=shown, threat=threat), part, attack)
        for part in ([protocol] if protocol in single else single)
    ]
    return 100.0 * float(np.logical_and.reduce(stand).mean())


def _standing(subject: Subject, protocol: str, attack: str | dict[str, Any]) -> np.ndarray:
    """Which examples, `(N,)` bool, survive; kept beside the cells, which share it."""
    from keras_robust.attacks.made_on import MadeOn
    from keras_robust.evaluation.identity import identity
    from keras_robust.evaluation.protocols import GREY_BOX, by_protocol
    from keras_robust.models.ways import STATIC

    ((name, made),) = _named(attack, subject.threat, subject.model).items()
    if made is None or protocol != GREY_BOX:
        made = by_protocol({name: made}, subject.model)[name]
    else:
        made = MadeOn.of(made, STATIC)
    asked = [subject.dataset, subject.examples, subject.seed, dict(subject.threat), attack, protocol]
    determining = [*asked, identity(subject.model), versions()]
    digest = hashlib.sha256(json.dumps(determining).encode()).hexdigest()[:16]
    place = subject.directory.parent / "standing" / digest
    return _evaluated(replace(subject, directory=place), {name: made}, subject.threat).correct


@measures.register("distance")
def distance(
    subject: Subject,
    attack: str | dict[str, Any],
    measured: str = "l2",
    statistic: str = "mean",
) -> float:
    """Mean or median distance of the nearest misclassified images that a minimum-norm attack finds.

    Args:
        subject: what is measured.
        attack: as in `accuracy`.
        measured: "linf", "l2" or "rms".
        statistic: "mean" or "median".
    """
    from keras_robust.evaluation.blocks import MEASURES

    require_choice("measure of distances", measured, MEASURES)
    require_choice("statistic", statistic, ("mean", "median"))
    outcome = _attacked(subject, attack, norm="l2")
    return outcome.distance_summary.get(measured, {}).get(statistic, math.nan)


@measures.register("transfer")
def transfer(
    subject: Subject, source: Subject, attack: str | dict[str, Any], variant: str | None = None
) -> float:
    """Accuracy in percent on adversarial images that were made on another model.

    Args:
        subject: what is measured.
        source: what the images are made on, inside its threat model.
        attack: as in `accuracy`.
        variant: of the subject.
    """
    from keras_robust.attacks import classify

    shown = subject.variant(variant) if variant else subject.model
    images = attacked_images(subject, source.model, attack, source.threat)
    labels = load(subject.dataset, "test", subject.examples, subject.seed).labels
    return 100.0 * float((classify(shown, images) == labels).mean())


def attack_on(model: keras.Model, threat: Mapping[str, Any], attack: str | dict[str, Any]) -> Attack:
    """The attack on a model that a cell names, in a threat model."""
    made = next(iter(_named(attack, threat, model).values()))
    require(made is not None, f"This measure needs an attack. Received: {attack!r}.")
    return made  # type: ignore[return-value]


def _attacked(
    subject: Subject,
    attack: str | dict[str, Any],
    eps: float | None = None,
    norm: str | None = None,
    step_size: float | None = None,
) -> Outcome:
    given = {"eps": eps, "norm": norm, "step_size": step_size}
    threat = {**subject.threat, **{key: value for key, value in given.items() if value is not None}}
    return _evaluated(subject, _named(attack, threat, subject.model), threat)


def _evaluated(subject: Subject, named: dict[str, Attack | None], threat: Mapping[str, Any]) -> Outcome:
    """What the one attack that is named leaves of the subject's examples."""
    from keras_robust.evaluation import evaluate

    report = evaluate(
        subject.model,
        subject.dataset,
        named,
        **threat,
        examples=subject.examples,
        seed=subject.seed,
        checks=False,
        directory=subject.directory,
        resume=True,
        progress=subject.progress,
    )
    return report.outcomes[next(iter(named))]


def _named(
    attack: str | dict[str, Any], threat: Mapping[str, Any], model: keras.Model
) -> dict[str, Attack | None]:
    """The attack by the name that reports give it; options stated go before those of the short name."""
    from keras_robust.evaluation.naming import attack_named

    options: dict[str, Any] = {"name": attack} if isinstance(attack, str) else dict(attack)
    name = options.pop("name")
    made = attack_named(name, threat, model)
    if made is None or not options:
        return {name: made}
    options |= _beside(model, options.get("loss"))
    check_options(f"attack {name}", {"eps": made.eps, **options}, type(made))
    return {name: replace(made, **options)}


def _beside(model: keras.Model, loss: Any) -> dict[str, Any]:
    """The loss that looks through a model kept beside the classifier, if that is what is asked for."""
    given = dict(loss) if isinstance(loss, dict) else {"name": loss}
    if given.pop("name", None) != SEPARATION:
        return {}
    from keras_robust.attacks.separation import Separation

    check_options(f"objective {SEPARATION!r}", given, Separation.beside, supplied=("model",))
    return {"loss": Separation.beside(model, **given)}


def attacked_images(
    subject: Subject, model: keras.Model, attack: str | dict[str, Any], threat: Mapping[str, Any]
) -> np.ndarray:
    """The subject's examples after an attack on a model; as they are if there is none."""
    asked = json.dumps([attack, dict(threat)])
    return _adversarial(model, asked, subject.dataset, subject.examples, subject.seed)


@lru_cache(maxsize=32)  # rows share what was made on one model
def _adversarial(model: keras.Model, asked: str, dataset: str, examples: int, seed: int) -> np.ndarray:
    attack, threat = json.loads(asked)
    (made,) = _named(attack, threat, model).values()
    images, labels = load(dataset, "test", examples, seed)
    return images if made is None else made(model, images, labels, seed=seed)
