"""How certain a classifier is of clean and of adversarial examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.table import Table

from keras_robust import losses
from keras_robust.analysis.finding import Finding, columns
from keras_robust.analysis.pairs import pairs
from keras_robust.detection.base import roc_auc
from keras_robust.errors import require_choice

ADVERSARIAL = ("adversarial", "successful", "failed")  # all of them, and by what became of them


@dataclass(frozen=True)
class PredictionEntropy(Finding):
    """Entropy of the predictions, in nats.

    Attributes:
        clean: `(N,)`.
        adversarial: `(N,)`.
        successful: `(N,)` bool: rightly classified without the attack, wrongly with it.
        failed: `(N,)` bool: rightly classified with and without it.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    successful: np.ndarray
    failed: np.ndarray

    @property
    def roc_auc(self) -> float:
        """How well the entropy tells adversarial from clean examples, in [0, 1]; 0.5 is chance."""
        return roc_auc(self.clean, self.adversarial)

    def roc_auc_of(self, kind: str) -> float:
        """The same for the "successful" or "failed" adversarial examples alone; NaN if there is none."""
        require_choice("kind of adversarial examples", kind, ADVERSARIAL)
        values = self._kinds()[kind]
        return roc_auc(self.clean, values) if len(values) else math.nan

    def rows(self) -> Iterator[Sequence[Any]]:
        yield "index", "clean", "adversarial", "successful", "failed"
        each = (self.clean, self.adversarial, self.successful.astype(int), self.failed.astype(int))
        yield from zip(range(len(self.clean)), *each, strict=True)

    def table(self) -> Table:
        table = columns("examples", "number", "mean entropy", "median", "ROC-AUC against clean")
        for kind, values in self._kinds().items():
            area = "" if kind == "clean" else f"{self.roc_auc_of(kind):.4f}"
            middle = [f"{find(values):.4f}" if len(values) else "" for find in (np.mean, np.median)]
            table.add_row(kind, str(len(values)), *middle, area)
        return table

    def draw(self, figure: Any) -> None:
        axes = figure.subplots()
        bins = np.linspace(0, max(self.clean.max(), self.adversarial.max(), 1e-6), 40)
        for kind, values in self._kinds().items():
            if kind != "adversarial":  # its parts are drawn
                axes.hist(values, bins, histtype="step", label=kind)
        axes.set(xlabel="entropy of the prediction (nats)", ylabel="examples", yscale="symlog")
        axes.set_title(f"ROC-AUC {self.roc_auc:.3f}", fontsize=9)
        axes.legend()

    def _kinds(self) -> dict[str, np.ndarray]:
        parts = {"successful": self.successful, "failed": self.failed}
        return {
            "clean": self.clean,
            "adversarial": self.adversarial,
            **{kind: self.adversarial[rows] for kind, rows in parts.items()},
        }


def prediction_entropy(
    model: keras.Model, examples: tuple[Any, Any], attack: Any, *, seed: int = 0
) -> PredictionEntropy:
    """Entropy of the predictions on clean and adversarial examples, and how well it tells them apart.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`.
        examples: images `(N, ...)` float in [0, 1] and labels `(N,)`.
        attack: an `Attack`, or adversarial images shaped like the images.
        seed: of the attack.

    Source: Bui et al., ECCV 2020, Figures 5 and 11.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=100, seed=0)
    >>> found = prediction_entropy(kr.zoo.load("at_digits"), digits, kr.attacks.FGSM(eps=0.15))
    >>> found.roc_auc > 0.6
    True
    """
    seen = pairs(model, examples, attack, seed)
    clean, adversarial = (np.asarray(losses.entropy(side.logits)) for side in (seen.clean, seen.attacked))
    return PredictionEntropy(clean, adversarial, seen.successful, seen.failed)
