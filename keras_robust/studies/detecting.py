"""The measure of detectors of adversarial inputs."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras_robust as kr
from keras_robust.errors import require_choice
from keras_robust.files import replacing
from keras_robust.schema import check_options
from keras_robust.studies.measures import Subject, attack_on, measures

if TYPE_CHECKING:
    import keras

    from keras_robust.analysis.detection import DetectionTable

METRICS = ("acc_adv", "acc_nadv", "acc_cla", "acc_com", "roc_auc")


@measures.register("detection")
def detection(
    subject: Subject,
    detector: str | dict[str, Any],
    metric: str,
    attack: str | dict[str, Any],
    fit_on: str | dict[str, Any] | None = None,
) -> float:
    """What a detector and the classifier that it guards make of an attack, in percent (ROC-AUC: in [0, 1]).

    Args:
        subject: what is measured.
        detector: a name in `detection.detectors`, or `{"name": ..., **options}`.
        metric: "acc_adv", "acc_nadv", "acc_cla", "acc_com" or "roc_auc", see `detection.DetectionMetrics`.
        attack: what it is judged on, as in `accuracy`.
        fit_on: what it is fit on; None: the same attack.
    """
    require_choice("metric of detection", metric, METRICS)
    guard = {"name": detector} if isinstance(detector, str) else detector
    attacks = {_label(one): one for one in (attack if fit_on is None else fit_on, attack)}
    asked = json.dumps([guard, dict(subject.threat), attacks])
    found, picture = _found(
        subject.model, asked, subject.dataset, subject.examples, subject.seed, subject.progress
    )
    for file, content in picture.items():
        with replacing(subject.directory / file) as draft:
            draft.write_bytes(content)
    wanted = (next(iter(attacks)), _label(attack))
    row = next(row for row in found.found if (row.fit_on, row.judged_on) == wanted)
    value = row.roc_auc if metric == "roc_auc" else getattr(row.metrics, metric)
    return math.nan if value is None else value


def _label(attack: str | dict[str, Any]) -> str:
    """An attack's short name, and the options that it was given."""
    if isinstance(attack, str):
        return attack
    options = {key: value for key, value in attack.items() if key != "name"}
    return " ".join([attack["name"], *(f"{key}={value}" for key, value in options.items())])


@lru_cache(maxsize=4)  # every metric is asked for by itself
def _found(
    model: keras.Model, asked: str, dataset: str, examples: int, seed: int, progress: bool
) -> tuple[DetectionTable, dict[str, bytes]]:
    """What was found, and the files of its picture."""
    options, threat, attacks = json.loads(asked)
    name = options.pop("name")
    build = kr.detection.detectors[name]
    check_options(f"detector {name}", options, build)
    guards = {name: build(**options)}
    given, known = kr.data.load(dataset, "test", examples, seed), kr.data.load(dataset, "train")
    made = {
        key: _once(model, json.dumps(threat), json.dumps(attack), dataset, examples, seed)
        for key, attack in attacks.items()
    }
    first = next(iter(made))
    found = kr.analysis.detection(
        model, given, made, guards, training=known, fit_on=[first], seed=seed, progress=progress
    )
    with tempfile.TemporaryDirectory() as place:
        found.to_png(Path(place) / "detection.png")
        return found, {file.name: file.read_bytes() for file in Path(place).iterdir()}


@lru_cache(maxsize=8)  # every detector of a model meets the same images
def _once(
    model: keras.Model, threat: str, attack: str, dataset: str, examples: int, seed: int
) -> Callable[..., Any]:
    """An attack on the examples of a study, which is made when it is first called."""
    made = attack_on(model, json.loads(threat), json.loads(attack))
    found: list[Any] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not found:
            found.append(made(*arguments, **options))
        return found[0]

    return call
