"""An adaptive attack on a classifier and its detector together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_robust.attacks import PGD, classify
from keras_robust.attacks.evasion import Evasion
from keras_robust.detection.density import DensityDetector
from keras_robust.errors import require
from keras_robust.validation import check_images, check_labels

LOSSES = ("cross_entropy", "margin")
WEIGHTS = (0.1, 1.0, 10.0)


def evade(
    detector: DensityDetector,
    model: keras.Model,
    images: Any,
    labels: Any,
    attack: PGD,
    *,
    losses: Sequence[Any] = LOSSES,
    weights: Sequence[float] = WEIGHTS,
    seed: int = 0,
) -> np.ndarray:
    """Images inside the attack's ball that `model` misclassifies and `detector` lets through, where found.

    The attack climbs each loss less each weight times the detector's score (`attacks.Evasion`), on the
    images that are not yet both. An image for which none was found is the one that came nearest: a
    misclassified one if there was any.

    Args:
        detector: after `fit`.
        model: the classifier that it guards.
        images: `(N, ...)` float in [0, 1].
        labels: `(N,)` integers, the true classes.
        attack: its own loss is replaced.
        losses: on the logits.
        weights: of the score, >= 0.
        seed: of the attack.

    Returns:
        float32 array shaped like the images.

    Raises:
        InputError: a detector without a gradient, another attack, or wrong arrays.

    Source: Carlini & Wagner 2017, "Adversarial examples are not easily detected"; Tramèr et al. 2020.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> images, labels = kr.data.load("digits", "test", examples=200, seed=0)
    >>> attack = kr.attacks.PGD(eps=0.3, steps=10)
    >>> adversarial = attack(model, images, labels)
    >>> detector = kr.detection.ERDetector().fit(model, images, adversarial, labels=labels)
    >>> found = evade(detector, model, images, labels, attack)
    >>> bool(detector.predict(model, found).mean() < detector.predict(model, adversarial).mean())
    True
    """
    require(
        isinstance(detector, DensityDetector),
        "An attack on a detector takes one by density, which has a gradient. "
        f"Received: {type(detector).__name__}.",
    )
    check_evading(attack)
    images = check_images(images, model.input_shape[1:])
    labels = check_labels(labels, model.output_shape[-1], len(images))
    target = detector.target(model)
    found, best = images.copy(), np.full(len(images), -1)
    for objective in (Evasion(loss, weight) for loss in losses for weight in weights):
        rows = np.flatnonzero(best < 2)
        if not rows.size:
            break
        tried = replace(attack, loss=objective)(target, images[rows], labels[rows], seed=seed)
        wrong = classify(model, tried) != labels[rows]
        reached = np.where(wrong & ~detector.predict(model, tried), 2, wrong)
        better = reached > best[rows]
        found[rows[better]], best[rows[better]] = tried[better], reached[better]
    return found


def check_evading(attack: Any) -> None:
    """Refuse an attack that cannot climb a detector's score."""
    require(
        isinstance(attack, PGD),
        f"An attack on a detector is PGD or a relative of it. Received: {type(attack).__name__}.",
    )
