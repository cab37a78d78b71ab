"""Attack a classifier and report what stands."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_robust import data
from keras_robust.attacks import Attack, classify
from keras_robust.errors import InputError, require
from keras_robust.evaluation.checks import warnings
from keras_robust.evaluation.naming import CLEAN, named_attacks, settings
from keras_robust.evaluation.report import Outcome, Report
from keras_robust.models.precision import in_float32
from keras_robust.threat import ThreatModel
from keras_robust.validation import check_images, check_labels, check_logits


def evaluate(
    model: keras.Model,
    examples_from: Any,
    attacks: Sequence[str | Attack] | Mapping[str, Attack] | str = ("clean", "pgd-40", "square-5000"),
    *,
    eps: float | None = None,
    norm: str | None = None,
    step_size: float | None = None,
    examples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    progress: bool = True,
) -> Report:
    """Accuracy of `model` under each attack on one set of examples, and under all of them together.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`; evaluated in float32, left unchanged.
        examples_from: `(images, labels)`, or the name of a dataset, whose test set is taken.
        attacks: short names ("pgd-40": 40 steps, "square-5000": 5000 queries), `Attack` objects, or a
            mapping from names to attacks. "clean" is always reported.
        eps, norm, step_size: the threat model; by default that of the model's card. Gradient attacks
            without a step size take 2.5 eps / steps.
        examples: evaluate a random subset of this size, drawn with `seed`; None: all.
        seed: of the subset and of the attacks.
        batch_size: examples attacked at once.
        progress: show progress and time left on the terminal.

    Returns:
        Report: each attack runs on all examples that are classified rightly without it.

    Raises:
        InputError: unknown attack or dataset, no eps, images or labels of a wrong kind, a model that
            outputs probabilities.

    >>> import keras_robust as kr
    >>> model = kr.models.build("small_cnn")
    >>> report = evaluate(model, "digits", ["fgsm"], eps=0.1, examples=20, progress=False)
    >>> sorted(report.accuracy)
    ['clean', 'fgsm']
    """
    require(
        isinstance(model, keras.Model) and model.built,
        f"The model must be a built keras.Model. Received: {model!r}.",
    )
    require(
        isinstance(batch_size, int) and batch_size >= 1,
        f"batch_size must be an integer >= 1. Received: {batch_size!r}.",
    )
    threat = _threat(model, eps, norm, step_size)
    named = named_attacks(attacks, threat)
    images, labels, indices = _examples(model, examples_from, examples, seed)
    model = in_float32(model)
    check_logits(model(images[:8], training=False))
    outcomes: dict[str, Outcome] = {}
    with _progress(progress) as advance:
        for name, attack in named.items():
            standing = outcomes[CLEAN].correct if outcomes else np.ones(len(labels), bool)
            steps = _attacked(model, attack, images, labels, standing, seed=seed, batch_size=batch_size)
            outcomes[name] = _outcome(attack, advance(name, steps, len(labels)), len(labels))
    return Report(
        outcomes,
        {key: value for key, value in threat.items() if value is not None},
        indices,
        warnings(outcomes),
        model=getattr(getattr(model, "card", None), "name", "") or model.name,
        dataset=examples_from if isinstance(examples_from, str) else "",
        seed=seed,
        batch_size=batch_size,
        versions=_versions(),
    )


def _attacked(
    model: keras.Model,
    attack: Attack | None,
    images: np.ndarray,
    labels: np.ndarray,
    standing: np.ndarray,
    *,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of each batch with whether they are classified rightly after the attack."""
    for number, first in enumerate(range(0, len(labels), batch_size)):
        rows = np.arange(first, min(first + batch_size, len(labels)))
        attacked = rows[standing[rows]]
        correct = np.zeros(len(rows), bool)
        if attacked.size:
            found = images[attacked]
            if attack is not None:
                found = attack(model, found, labels[attacked], seed=seed + number, batch_size=batch_size)
            correct[standing[rows]] = classify(model, found, batch_size) == labels[attacked]
        yield rows, correct


def _outcome(attack: Attack | None, steps: Iterator[tuple[np.ndarray, np.ndarray]], size: int) -> Outcome:
    correct, begun = np.zeros(size, bool), time.perf_counter()
    for rows, values in steps:
        correct[rows] = values
    seconds = time.perf_counter() - begun
    if attack is None:
        return Outcome(correct, seconds=seconds)
    return Outcome(correct, settings(attack), attack.black_box, seconds)


def _threat(
    model: keras.Model, eps: float | None, norm: str | None, step_size: float | None
) -> dict[str, Any]:
    """The threat model asked for; what is left open is the card's, unless it is of another ball."""
    known = getattr(getattr(model, "card", None), "threat", None) or {}
    threat: dict[str, Any] = {"norm": norm or known.get("norm", "linf")}
    if threat["norm"] != known.get("norm"):
        known = {}
    threat["eps"] = known.get("eps") if eps is None else eps
    if threat["eps"] != known.get("eps"):
        known = {}
    threat["step_size"] = known.get("step_size") if step_size is None else step_size
    if threat["eps"] is None:
        raise InputError("The model carries no threat model: give eps, for example eps=8/255.")
    ThreatModel(threat["norm"], threat["eps"])
    threat["eps"] = float(threat["eps"])
    return threat


def _examples(
    model: keras.Model, source: Any, examples: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(source, str):
        images, labels = data.load(source, "test", raw=True)
    elif isinstance(source, (tuple, list)) and len(source) == 2:
        images = check_images(source[0], shape=model.input_shape[1:])
        labels = check_labels(source[1], model.output_shape[-1], len(images))
    else:
        raise InputError(
            f"Give (images, labels) or the name of a dataset. Received: {type(source).__name__}. "
            f"Datasets: {', '.join(data.datasets)}."
        )
    indices = data.subset(len(labels), examples, seed)
    chosen = data.Arrays(images[indices], labels[indices]).as_float()
    checked = check_images(chosen.images, shape=model.input_shape[1:])
    return checked, check_labels(chosen.labels, model.output_shape[-1], len(checked)), indices


@contextmanager
def _progress(shown: bool) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bar:

        def advance(name: str, steps: Iterator[tuple[np.ndarray, np.ndarray]], total: int) -> Iterator[Any]:
            task = bar.add_task(name, total=total)
            for rows, correct in steps:
                bar.advance(task, len(rows))
                yield rows, correct

        yield advance


def _versions() -> dict[str, str]:
    import tensorflow as tf

    import keras_robust

    packages = {"keras_robust": keras_robust, "keras": keras, "tensorflow": tf, "numpy": np}
    return {name: package.__version__ for name, package in packages.items()}
