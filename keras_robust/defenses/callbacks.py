"""Callbacks of a training run: keep what withstands attacks, and lose nothing."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_robust.attacks import Attack, classify
from keras_robust.files import save_weights, write_text
from keras_robust.workers import is_chief

HELD_OUT = "held_out_"  # begins the names of the guard's logs


def chief_only(method: Callable[..., None]) -> Callable[..., None]:
    """A method of a callback that does nothing on the workers that write no files."""

    @wraps(method)
    def on_chief(self: Any, *arguments: Any) -> None:
        strategy = getattr(self.model, "distribute_strategy", None)  # no model, no workers
        if strategy is None or is_chief(strategy):
            method(self, *arguments)

    return on_chief


class Score(NamedTuple):
    """How good an epoch is: its smallest held-out accuracy, and among equals the clean one.

    Without the second, a model that nothing withstands would be kept as its first epoch left it.
    """

    worst: float = -1.0
    clean: float = -1.0

    @classmethod
    def of(cls, accuracies: Mapping[str, float]) -> Score:
        return cls(min(accuracies.values()), accuracies["clean"])


class RobustGuard(keras.callbacks.Callback):
    """Keep the weights of the epoch that is best against the worse of two attacks.

    A white-box attack alone can be passed by hiding gradients, and the last epoch can be overfitted
    (Rice et al. 2020); so every epoch is scored by the smaller of a white-box and a black-box
    accuracy on held-out images, and the best classifier so far is kept; among equals, that of the better
    clean accuracy. Weight averages are used where the optimizer keeps them. Adds `held_out_clean`,
    `held_out_white_box` and `held_out_black_box` (shares in [0, 1]) to the logs.

    Args:
        images: `(N, ...)` float32 in [0, 1], not trained on.
        labels: `(N,)` integers.
        white_box, black_box: the attacks; None leaves one out (an undefended model is kept by its
            clean accuracy if both are left out).
        path: `.weights.h5` file for the best classifier, replaced atomically; those of its companions go
            beside it. None: they are kept in memory, and put into the classifier when training ends.
        best: score to beat, of an earlier part of the same run: the smallest accuracy and the clean one.
        every: epochs between two scores; the first and the last are always scored.
        epochs: of the whole run; None: those that `fit` was asked for.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        white_box: Attack | None,
        black_box: Attack | None,
        path: Path | str | None,
        best: tuple[float, float] = Score(),
        every: int = 1,
        epochs: int | None = None,
    ) -> None:
        super().__init__()
        self.images, self.labels = images, labels
        self.attacks = {"white_box": white_box, "black_box": black_box}
        self.path = None if path is None else Path(path)
        self.best = best
        self.kept: dict[str, list[np.ndarray]] = {}
        self.every = every
        self.epochs = epochs

    @chief_only
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last = epoch + 1 == (self.epochs or self.params.get("epochs"))
        if epoch % self.every and not last:
            return
        with self.model.averaged():
            accuracies = self._accuracies()
            score = Score.of(accuracies)
            if score > self.best:
                self._keep()
                self.best = score
        if logs is not None:
            logs.update({f"{HELD_OUT}{name}": value for name, value in accuracies.items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        models = self._models()
        for kind, weights in self.kept.items():
            models[kind].set_weights(weights)

    def _models(self) -> dict[str, keras.Model]:
        """What is kept, by kind; the classifier's is empty."""
        return {"": self.model.classifier, **self.model.companions()}

    def _keep(self) -> None:
        for kind, model in self._models().items():
            if self.path is None:
                self.kept[kind] = model.get_weights()
            else:
                save_weights(model, beside(self.path, kind) if kind else self.path)

    def _accuracies(self) -> dict[str, float]:
        classifier = self.model.classifier
        standing = classify(classifier, self.images) == self.labels
        accuracies = {"clean": float(standing.mean())}
        rows = np.flatnonzero(standing)
        for name, attack in self.attacks.items():
            if attack is not None:
                accuracies[name] = self._surviving(attack, rows) / len(self.labels)
        return accuracies

    def _surviving(self, attack: Attack, rows: np.ndarray) -> int:
        if not rows.size:
            return 0
        images, labels = self.images[rows], self.labels[rows]
        found = attack(self.model.classifier, images, labels)
        return int((classify(self.model.classifier, found) == labels).sum())


def beside(path: Path, kind: str) -> Path:
    """Where the weights of a companion lie, given those of the classifier."""
    return path.with_name(f"{kind}.{path.name}")


class Stopwatch(keras.callbacks.Callback):
    """Adds `seconds`, the duration of the epoch so far, to its logs."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["seconds"] = time.perf_counter() - self.begun


class EpochLog(keras.callbacks.Callback):
    """A CSV file with a row for each epoch, replaced atomically.

    Its columns are those of the first epoch, also for a run that is resumed; what a later epoch lacks,
    such as a score that was not due, is NA.

    Args:
        path: the file; rows that are there already are kept.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)

    @chief_only
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": epoch, **(logs or {})}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        columns = next(csv.reader(text.splitlines()), list(row))
        added = io.StringIO()
        rows = csv.DictWriter(added, columns, restval="NA", extrasaction="ignore", lineterminator="\n")
        if not text:
            rows.writeheader()
        rows.writerow(row)
        write_text(self.path, text + added.getvalue())


class Checkpoint(keras.callbacks.Callback):
    """One atomic file with all that a run needs to go on: weights, every optimizer, the step.

    Written at the end of each epoch, and by `save`.

    Args:
        path: `.weights.h5` file; load it with `defense.load_weights` after `compile`.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)

    @chief_only
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.save()

    def save(self) -> None:
        """Write the checkpoint now."""
        save_weights(self.model, self.path)
