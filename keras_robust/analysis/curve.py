"""Accuracy against the radius of the ball."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from rich.table import Table

from keras_robust.analysis.finding import Finding, columns
from keras_robust.attacks import Attack
from keras_robust.errors import require
from keras_robust.evaluation import evaluate
from keras_robust.evaluation.naming import named_attacks
from keras_robust.evaluation.source import threat_of
from keras_robust.workers import Workers


@dataclass(frozen=True)
class Curve(Finding):
    """Accuracies in percent at each of `eps`, by model or by attack."""

    eps: list[float]
    accuracy: dict[str, list[float]]

    def rows(self) -> Iterator[Sequence[Any]]:
        yield "eps", *self.accuracy
        yield from zip(self.eps, *self.accuracy.values(), strict=True)

    def table(self) -> Table:
        table = columns("eps", *self.accuracy)
        for eps, *values in zip(self.eps, *self.accuracy.values(), strict=True):
            table.add_row(f"{eps:g}", *[f"{value:.2f}" for value in values])
        return table

    def draw(self, figure: Any) -> None:
        axes = figure.subplots()
        for name, values in self.accuracy.items():
            axes.plot(self.eps, values, marker="o", label=name)
        axes.set(xlabel="eps", ylabel="accuracy %", ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend()


def accuracy_curve(
    models: Mapping[str, keras.Model],
    examples: tuple[Any, Any],
    attack: Attack,
    eps: Sequence[float],
    seed: int = 0,
) -> Curve:
    """Accuracy of each model under `attack` at each radius.

    Args:
        models: by the name they get in the curve.
        examples: images `(N, ...)` float32 in [0, 1] and labels `(N,)`.
        attack: its own eps is replaced by each of `eps`.
        eps: radii >= 0, in the units of the images.
        seed: of the attack.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=20, seed=0)
    >>> attack = kr.attacks.FGSM(eps=0.1)
    >>> accuracy_curve({"cnn": kr.models.build("small_cnn")}, digits, attack, [0.0, 0.1]).eps
    [0.0, 0.1]
    """
    require(len(eps) > 0, "Give at least one eps.")
    found: dict[str, list[float]] = {name: [] for name in models}
    for radius in eps:
        at_radius = replace(attack, eps=float(radius))
        for name, model in models.items():
            report = evaluate(
                model,
                examples,
                {"attack": at_radius},
                eps=radius,
                norm=attack.norm,
                seed=seed,
                checks=False,
                progress=False,
            )
            found[name].append(report.accuracy["attack"])
    return Curve([float(radius) for radius in eps], found)


def sweep(
    model: keras.Model,
    examples_from: Any,
    attacks: Sequence[str] | None,
    eps: Sequence[float],
    *,
    directory: Path | str | None = None,
    **asked: Any,
) -> Curve:
    """Accuracy of a model under each attack, and under all of them together, at each radius.

    Args:
        model, examples_from: as in `evaluate`.
        attacks: short names; None: those of `evaluate`.
        eps: radii >= 0, in the units of the images; a step size on the model's card grows with them.
        directory: keep the evaluation of each radius there; with `resume=True` what is there is not
            made again.
        asked: options of `evaluate`, in which `checks` are off by default.

    Raises:
        InputError: no radius, an attack in another norm than the model's, and whatever `evaluate` refuses.

    >>> import keras_robust as kr
    >>> model = kr.models.build("small_cnn")
    >>> curve = sweep(model, "digits", ["fgsm"], [0.0, 0.1], examples=20, progress=False)
    >>> list(curve.accuracy)
    ['clean', 'fgsm', 'worst case']
    """
    require(len(eps) > 0, "Give at least one eps.")
    _check_attacks(model, attacks or (), threat_of(model, eps[0], asked.get("norm"), asked.get("step_size")))
    found: dict[str, list[float]] = {}
    is_chief = Workers(asked.get("strategy")).is_chief
    asked = {"checks": False, **asked}
    for radius in eps:
        place = None if directory is None else Path(directory) / f"eps-{radius:g}"
        report = evaluate(model, examples_from, attacks, eps=radius, directory=place, **asked)
        worst = {} if report.worst_case is None else {"worst case": report.worst_case}
        for name, accuracy in {**report.accuracy, **worst}.items():
            found.setdefault(name, []).append(accuracy)
        if place is not None and is_chief:
            report.to_json(place / "report.json")
    return Curve([float(radius) for radius in eps], found)


def _check_attacks(model: keras.Model, attacks: Sequence[str], threat: dict[str, Any]) -> None:
    """Refuse attacks that have no radius of the curve's."""
    for attack in attacks:
        require(isinstance(attack, str), f"A curve takes attacks by short names. Received: {attack!r}.")
    named = named_attacks(attacks, threat, model)
    outside = [name for name, attack in named.items() if attack and attack.norm != threat["norm"]]
    require(
        not outside,
        f"{', '.join(outside)}: an attack in another norm has no place on a curve against "
        f"{threat['norm']} eps.",
    )
