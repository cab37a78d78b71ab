"""How well detectors tell adversarial examples, of the attack they were fit on and of others."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from rich.table import Table

from keras_robust.analysis.finding import Finding, columns
from keras_robust.attacks import PGD, Attack, classify
from keras_robust.detection import (
    DensityDetector,
    DetectionMetrics,
    Detector,
    detection_metrics,
    evade,
    matched_noise,
    roc_auc,
)
from keras_robust.detection.evading import check_evading
from keras_robust.errors import InputError, is_finite, require, require_choice
from keras_robust.evaluation.progress import Begin, each
from keras_robust.evaluation.progress import progress as bars
from keras_robust.models.valid import check_model
from keras_robust.validation import check_images, check_labels

EVADING = "evading"
GIVEN = "given"


@dataclass(frozen=True)
class Row:
    """One detector, fit on images of one attack and judged on those of another.

    Attributes:
        detector, fit_on, judged_on: their names.
        metrics: see `DetectionMetrics`.
        roc_auc: of the scores, adversarial against natural and noisy inputs.
    """

    detector: str
    fit_on: str
    judged_on: str
    metrics: DetectionMetrics
    roc_auc: float


@dataclass(frozen=True)
class DetectionTable(Finding):
    """What `detection` found.

    Attributes:
        found: one row for each detector, attack to fit on and attack to judge on.
        examples: images that each attack was made on, in both parts.
        fitted: the detectors by their own name and that of the attack they were fit on.
    """

    found: list[Row]
    examples: int
    fitted: dict[tuple[str, str], Detector] = field(default_factory=dict, repr=False)
    notes: Sequence[str] = ()

    @property
    def size(self) -> tuple[float, float]:
        return 9, 1.2 + 0.28 * len(self.found)

    def rows(self) -> Iterator[Sequence[Any]]:
        yield "detector", "fit_on", "judged_on", *DetectionMetrics.__dataclass_fields__, "roc_auc"
        for row in self.found:
            yield row.detector, row.fit_on, row.judged_on, *asdict(row.metrics).values(), row.roc_auc

    def table(self) -> Table:
        names = ("detector", "fit on", "judged on", "ACC-ADV", "ACC-NADV", "ACC-CLA", "ACC-COM", "ROC-AUC")
        table = columns(*names, title=f"{self.examples} examples")
        for row in self.found:
            shares = ["" if share is None else f"{share:.2f}" for share in asdict(row.metrics).values()]
            table.add_row(row.detector, row.fit_on, row.judged_on, *shares, f"{row.roc_auc:.3f}")
        return table

    def draw(self, figure: Any) -> None:
        labels = [f"{row.detector}: {row.fit_on} → {row.judged_on}" for row in self.found]
        places = np.arange(len(labels))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, title in zip(
            panels,
            ("acc_nadv", "acc_com"),
            ("let through, of natural and noisy %", "detected or right, of adversarial %"),
            strict=True,
        ):
            axes.barh(places, [getattr(row.metrics, name) for row in self.found], color="tab:blue")
            axes.set(xlim=(0, 100), title=title, yticks=places, yticklabels=labels)
            axes.grid(axis="x", alpha=0.3)
        panels[0].invert_yaxis()


@dataclass(frozen=True)
class _Inputs:
    """Natural, noisy and adversarial images with the labels of all, `(N, ...)` each."""

    natural: np.ndarray
    noisy: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> _Inputs:
        return _Inputs(self.natural[rows], self.noisy[rows], self.adversarial[rows], self.labels[rows])


def detection(
    model: keras.Model,
    examples: tuple[Any, Any],
    attacks: Mapping[str, Attack],
    detectors: Mapping[str, Detector],
    *,
    training: tuple[Any, Any] | None = None,
    adaptive: PGD | None = None,
    fit_on: Sequence[str] | None = None,
    cross: bool = True,
    share: float = 0.2,
    only_right: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> DetectionTable:
    """Fit detectors on a part of the examples and judge them on the rest.

    Each attack is made on all examples, and noise added to them of its mean L2 distance. On one part of
    them each detector is fit for each attack; on the other it is judged on the same attack and on the others.

    Args:
        model: the classifier that is guarded.
        examples: test images `(N, ...)` float in [0, 1] and labels `(N,)`.
        attacks: by name.
        detectors: by name; copies of them are fit. One that is fit already is judged as it is.
        training: images that the classifier was trained on and their labels, for detectors by density.
        adaptive: an attack that is also made on the classifier and each detector by density together; see
            `detection.evade`.
        fit_on: names of the attacks to fit on; None: each of them.
        cross: judge on the other attacks too.
        share: of the examples to fit on, in (0, 1).
        only_right: leave out examples that the model gets wrong without an attack, as KD and LID do.
        seed: of the attacks, the noise and the division.
        progress: show progress and time left on the terminal.

    Raises:
        InputError: arrays of a wrong kind, no detector or attack, a share out of range, or too few examples.

    Source: ER-Classifier (ICCV 2021), section 4.4 and tables 5 to 8; Feinman et al. 2017; Ma et al. 2018.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> digits = kr.data.load("digits", "test", examples=300, seed=0)
    >>> attacks, known = {"fgsm": kr.attacks.FGSM(eps=0.3)}, kr.data.load("digits", "train")
    >>> found = detection(model, digits, attacks, {"er1": kr.detection.ERDetector()}, training=known)
    >>> found.found[0].roc_auc > 0.6
    True
    """
    fit_on = list(attacks) if fit_on is None else fit_on
    _check_asked(attacks, detectors, fit_on, share, adaptive)
    images, labels = _examples(model, examples, only_right)
    first, second = _divided(len(images), share, seed)
    for guard in detectors.values():
        if guard.threshold is not None:
            guard.score(model, images[:1])  # that it is not of another model is known before the attacks
    rows = []
    with bars(progress) as begin:
        inputs = {
            name: _inputs(images, attack(model, images, labels, seed=seed), labels, seed)
            for name, attack in each(begin, "attack", attacks.items())
        }
        met = {name: inputs[name].take(first) for name in fit_on}
        fitted = dict(_fitted(model, met, detectors, training, begin))
        judged = {name: one.take(second) for name, one in inputs.items()}
        for (detector, seen), guard in each(begin, "judge", fitted.items()):
            chosen = judged if cross or seen == GIVEN else {seen: judged[seen]}
            rows += [Row(detector, seen, on, *_judge(model, guard, one)) for on, one in chosen.items()]
            if adaptive is not None and isinstance(guard, DensityDetector):
                one = next(iter(judged.values()))
                found = evade(guard, model, one.natural, one.labels, adaptive, seed=seed)
                evading = _inputs(one.natural, found, one.labels, seed)
                rows.append(Row(detector, seen, EVADING, *_judge(model, guard, evading)))
    notes = [
        f"{name} has no gradient, so that it was not attacked itself."
        for name, detector in detectors.items()
        if adaptive is not None and not isinstance(detector, DensityDetector)
    ]
    return DetectionTable(rows, len(images), fitted, notes)


def _check_asked(
    attacks: Mapping[str, Attack],
    detectors: Mapping[str, Detector],
    fit_on: Sequence[str],
    share: float,
    adaptive: PGD | None,
) -> None:
    require(len(attacks) > 0 and len(detectors) > 0, "Give at least one attack and one detector.")
    require(len(fit_on) > 0, "Name at least one attack to fit on.")
    for name in fit_on:
        require_choice("attack to fit on", name, attacks)
    require(is_finite(share) and 0 < share < 1, f"share must be in (0, 1). Received: share={share!r}.")
    if adaptive is not None:
        check_evading(adaptive)


def _examples(
    model: keras.Model, examples: tuple[Any, Any], only_right: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that fit the model; with `only_right`, those that it gets right."""
    check_model(model)
    images = check_images(examples[0], model.input_shape[1:])
    labels = check_labels(examples[1], model.output_shape[-1], len(images))
    if not only_right:
        return images, labels
    right = classify(model, images) == labels
    return images[right], labels[right]


def _divided(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which examples to fit on, and which to judge on."""
    order = np.random.default_rng(seed).permutation(count)
    first, second = np.split(order, [round(share * count)])
    require(
        len(first) > 1 and len(second) > 0,
        f"Too few examples to fit on and to judge on. Received: {count} that the model gets right.",
    )
    return first, second


def _inputs(natural: Any, adversarial: Any, labels: Any, seed: int) -> _Inputs:
    return _Inputs(natural, matched_noise(natural, adversarial, seed), adversarial, labels)


def _fitted(
    model: keras.Model,
    inputs: Mapping[str, _Inputs],
    detectors: Mapping[str, Detector],
    training: Any,
    begin: Begin,
) -> Iterator[tuple[tuple[str, str], Detector]]:
    for name, detector in each(begin, "fit", detectors.items()):
        if detector.threshold is not None:
            yield (name, GIVEN), detector
            continue
        for attack, one in inputs.items():
            try:
                guard = copy.deepcopy(detector)
                guard.fit(model, one.natural, one.adversarial, one.noisy, one.labels, training)
            except InputError as error:
                raise InputError(f"{name}, fit on {attack}: {error}") from error
            yield (name, attack), guard


def _judge(model: keras.Model, guard: Detector, inputs: _Inputs) -> tuple[DetectionMetrics, float]:
    others = np.concatenate([guard.score(model, images) for images in (inputs.natural, inputs.noisy)])
    attacked = guard.score(model, inputs.adversarial)
    right = classify(model, inputs.adversarial) == inputs.labels
    metrics = detection_metrics(attacked > guard.threshold, others > guard.threshold, right)
    return metrics, roc_auc(others, attacked)
