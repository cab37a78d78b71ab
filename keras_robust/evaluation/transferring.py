"""Transfer: adversarial images made on one model, shown to the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_robust.attacks import Attack, classify
from keras_robust.errors import InputError, require, require_count
from keras_robust.evaluation.naming import CLEAN, named_attacks, settings
from keras_robust.evaluation.progress import Tell
from keras_robust.evaluation.progress import progress as bars
from keras_robust.evaluation.protocols import by_protocol
from keras_robust.evaluation.source import Examples, examples_of, threat_of
from keras_robust.files import write_text
from keras_robust.models.precision import in_float32
from keras_robust.models.valid import check_model
from keras_robust.noise import Noise, reseeded
from keras_robust.validation import check_logits, check_seed
from keras_robust.versions import versions


@dataclass(frozen=True)
class Transfer:
    """Accuracies in percent on images that were made on one model and shown to every model.

    Attributes:
        names: of the models.
        matrix: `(M, M)`, one row for the model that the images were made on, one column for the model
            that they were shown to; the diagonal is the white-box attack, end to end through whatever a
            model does to its input.
        clean: `(M,)` without an attack.
        attack: its name.
        threat: `{"norm": ..., "eps": ...}` of the attack.
        indices: which examples of the test set, or of the arrays given.
        options: by name of the model that was attacked, the attack's settings.
        dataset, seed, batch_size, versions: what repeats it.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    clean: np.ndarray
    attack: str
    threat: dict[str, Any]
    indices: np.ndarray
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    dataset: str = ""
    seed: int = 0
    batch_size: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(self.indices)

    def table(self) -> Table:
        """The matrix as a table for the terminal, the white-box attacks in bold."""
        norm, eps = self.threat["norm"], self.threat["eps"]
        place = f"{self.examples} examples of {self.dataset or 'the data given'}"
        table = Table(title=escape(f"accuracy % under {self.attack} on {place}, {norm} eps {eps:.4g}"))
        table.add_column("made on")
        for name in self.names:
            table.add_column(escape(name), justify="right")
        table.add_row(CLEAN, *[f"{value:.2f}" for value in self.clean])
        table.add_section()
        for source, row in zip(self.names, self.matrix, strict=True):
            cells = zip(self.names, row, strict=True)
            shown = (
                f"[bold]{value:.2f}[/bold]" if name == source else f"{value:.2f}" for name, value in cells
            )
            table.add_row(escape(source), *shown)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `accuracy[source][target]` is the matrix."""
        return {
            "names": list(self.names),
            "attack": self.attack,
            "threat": self.threat,
            "dataset": self.dataset,
            "examples": self.examples,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "clean": self._by_name(self.clean),
            "accuracy": self._by_name([self._by_name(row) for row in self.matrix]),
            "options": self.options,
            "versions": self.versions,
            "indices": self.indices.tolist(),
        }

    def to_json(self, path: Path | str) -> Path:
        """Write everything to a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        return Path(path)

    def to_csv(self, path: Path | str) -> Path:
        """Write one row a model that was attacked, after that of the clean images; one column a target."""
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["made on", *self.names])
        rows.writerow([CLEAN, *self.clean.tolist()])
        rows.writerows([name, *row] for name, row in zip(self.names, self.matrix.tolist(), strict=True))
        write_text(path, text.getvalue())
        return Path(path)

    def _by_name(self, values: Any) -> dict[str, Any]:
        return dict(zip(self.names, np.asarray(values).tolist(), strict=True))


def transfer(
    models: Mapping[str, keras.Model],
    examples_from: Any,
    attack: str | Attack | Mapping[str, Attack | None] = "pgd-40",
    *,
    eps: float | None = None,
    norm: str | None = None,
    step_size: float | None = None,
    examples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    progress: bool = True,
) -> Transfer:
    """Attack each of several models, and show what was made to all of them.

    A defense whose gradients are of no use to an attacker falls to images that were made on another
    model: a column with less off the diagonal than on it is a sign of masking.

    Args:
        models: two or more, by the names they get in the matrix; each maps images in [0, 1] to logits
            `(B, K)`, is evaluated in float32 and left unchanged.
        examples_from: `(images, labels)`, or the name of a dataset, whose test set is taken.
        attack: a short name ("pgd-40"), an `Attack` object, or a mapping from one name to one attack. A
            minimum-norm attack looks inside eps here; where it finds nothing, the clean image is shown.
        eps, norm: the threat model; by default that of the models' cards, which must be one.
        step_size: of gradient attacks; by default that of the card of the model attacked, in proportion to
            eps, else 2.5 eps / steps.
        examples: take a random subset of this size, drawn with `seed`; None: all.
        seed: of the subset and of the attack.
        batch_size: examples attacked at once.
        progress: show progress and time left on the terminal.

    Returns:
        Transfer: every example is attacked on every model; one that a target misclassifies without an
        attack counts as wrong for that target.

    Raises:
        InputError: fewer than two models, models for other images or classes, cards with different
            threat models, an attack that leaves the threat model, and whatever `evaluate` refuses.

    Source: Papernot et al. 2016, "Transferability in machine learning"; Athalye et al. 2018, section 3.1.

    >>> import keras_robust as kr
    >>> models = {"cnn": kr.models.build("small_cnn"), "small": kr.models.build("small_cnn", filters=2)}
    >>> transfer(models, "digits", "fgsm", eps=0.1, examples=20, progress=False).matrix.shape
    (2, 2)
    """
    _check_models(models)
    seed = check_seed(seed)
    require_count(batch_size=batch_size)
    threats = {name: threat_of(model, eps, norm, step_size) for name, model in models.items()}
    threat = _common(threats)
    named = {name: _attack_on(model, attack, threats[name]) for name, model in models.items()}
    taken = examples_of(next(iter(models.values())), examples_from, examples, seed)
    models = {name: in_float32(model) for name, model in models.items()}
    for model in models.values():
        with reseeded(model, Noise((seed, 0))):
            check_logits(model(taken.images[:8], training=False))
    blocks = _Blocks(models, taken, batch_size, seed)
    clean = blocks.clean()
    with bars(progress) as begin:
        matrix = [
            100.0 * blocks.attacked(source, made, clean, begin(source, len(clean), 0)).mean(axis=0)
            for source, (_, made) in named.items()
        ]
    return Transfer(
        tuple(models),
        np.array(matrix),
        100.0 * clean.mean(axis=0),
        attack=next(name for name, _ in named.values()),
        threat=threat,
        indices=taken.indices,
        options={source: settings(made) for source, (_, made) in named.items()},
        dataset=examples_from if isinstance(examples_from, str) else "",
        seed=seed,
        batch_size=batch_size,
        versions=versions(),
    )


@dataclass(frozen=True)
class _Blocks:
    """Examples, a batch at a time, and the models that all of them are shown to."""

    models: Mapping[str, keras.Model]
    taken: Examples
    batch_size: int
    seed: int

    def clean(self) -> np.ndarray:
        """Which examples `(N, M)` each model classifies rightly."""
        return np.concatenate([self._recognised(self.taken.images[rows], n) for n, rows in self._rows()])

    def attacked(self, source: str, attack: Attack, clean: np.ndarray, tell: Tell) -> np.ndarray:
        """Which of them stand `(N, M)` after an attack on the model `source`."""
        standing = clean.copy()
        for number, rows in self._rows():
            images, labels = self.taken.images[rows], self.taken.labels[rows]
            found = attack.run(self.models[source], images, labels, key=(self.seed, number))
            standing[rows] &= self._recognised(found, number)
            tell(len(labels))
        return standing

    def _rows(self) -> Iterator[tuple[int, slice]]:
        for number, first in enumerate(range(0, len(self.taken.labels), self.batch_size)):
            yield number, slice(first, first + self.batch_size)

    def _recognised(self, images: np.ndarray, number: int) -> np.ndarray:
        """Which images `(B, M)` of a block each model classifies rightly."""
        labels = self.taken.labels[number * self.batch_size :][: self.batch_size]
        found = []
        for model in self.models.values():
            with reseeded(model, Noise((self.seed, number))):
                found.append(classify(model, images) == labels)
        return np.stack(found, axis=1)


def _check_models(models: Any) -> None:
    require(
        isinstance(models, Mapping) and len(models) >= 2,
        f"Give two or more models by name, as a mapping. Received: {models!r}.",
    )
    for model in models.values():
        check_model(model)
    kinds = {name: (model.input_shape[1:], model.output_shape[-1]) for name, model in models.items()}
    stated = "; ".join(f"{name}: {shape} to {classes}" for name, (shape, classes) in kinds.items())
    require(
        len(set(kinds.values())) == 1,
        f"The models must take the same images and know the same number of classes. Received: {stated}.",
    )


def _common(threats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The one ball in which every model is attacked."""
    balls = {name: (threat["norm"], threat["eps"]) for name, threat in threats.items()}
    stated = "; ".join(f"{name}: {norm} eps {eps:g}" for name, (norm, eps) in balls.items())
    require(
        len(set(balls.values())) == 1,
        f"The models' cards have different threat models: give norm and eps. Received: {stated}.",
    )
    norm, eps = next(iter(balls.values()))
    return {"norm": norm, "eps": eps}


def _attack_on(model: keras.Model, wanted: Any, threat: Mapping[str, Any]) -> tuple[str, Attack]:
    """The attack on one of the models, with its name."""
    named = {name: attack for name, attack in named_attacks(wanted, threat, model).items() if attack}
    if len(named) != 1:
        raise InputError(f"Give one attack. Received: {', '.join(named) or CLEAN}.")
    ((name, attack),) = named.items()
    if attack.minimal:
        attack = replace(attack, eps=min(attack.eps, threat["eps"]))
    require(
        attack.norm == threat["norm"] and attack.eps <= threat["eps"],
        f"{name} leaves the threat model, {threat['norm']} eps {threat['eps']:g}: "
        f"it attacks in {attack.norm} with eps {attack.eps:g}.",
    )
    return name, by_protocol({name: attack}, model)[name]  # type: ignore[return-value]
