"""Decisions in the plane, for classifiers of points, and where points are moved to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.table import Table

from keras_robust.analysis.finding import Finding, columns
from keras_robust.attacks import Attack, classify
from keras_robust.errors import require
from keras_robust.validation import check_images, check_labels

_MARGIN = 0.05  # around the points


@dataclass(frozen=True)
class DecisionMap(Finding):
    """Predicted classes over the plane, and points that were moved in it.

    Attributes:
        x, y: coordinates of the grid, `(S,)` each.
        prediction: `(S, S)` int, the class predicted at `(x[i], y[j])`.
        start: points before they are moved, `(N, 2)`.
        end: the same afterwards, `(N, 2)`.
        label: their true classes, `(N,)`.
        predicted: the classes predicted where they end, `(N,)`.
    """

    x: np.ndarray
    y: np.ndarray
    prediction: np.ndarray
    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    predicted: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the points that are classified rightly where they end, in percent."""
        return 100.0 * float((self.predicted == self.label).mean())

    @property
    def size(self) -> tuple[float, float]:
        return 5, 4

    def rows(self) -> Iterator[Sequence[Any]]:
        """The grid, as lines along y on which one class is predicted, then the points."""
        yield "what", "x", "y", "to x", "to y", "label", "prediction"
        for x, predictions in zip(self.x, self.prediction, strict=True):
            firsts = np.flatnonzero(np.diff(predictions, prepend=-1))
            lasts = np.append(firsts[1:], len(predictions)) - 1
            for first, last in zip(firsts, lasts, strict=True):
                yield "line", x, self.y[first], x, self.y[last], "", predictions[first]
        for start, end, label, predicted in zip(
            self.start, self.end, self.label, self.predicted, strict=True
        ):
            yield "point", *start, *end, label, predicted

    def table(self) -> Table:
        table = columns("", "")
        moved = self.end - self.start
        table.add_row("points", str(len(self.label)))
        table.add_row("mean distance moved, Linf", f"{np.abs(moved).max(axis=1).mean():.4f}")
        table.add_row("mean distance moved, L2", f"{np.linalg.norm(moved, axis=1).mean():.4f}")
        table.add_row("rightly classified where they end %", f"{self.accuracy:.2f}")
        return table

    def draw(self, figure: Any) -> None:
        """The classes as colours of the plane, the points in those of their own, arrows where they moved."""
        axes = figure.subplots()
        classes = max(9, int(self.prediction.max()))
        colours = {"cmap": "tab10" if classes < 10 else "turbo", "vmin": 0, "vmax": classes}
        axes.pcolormesh(self.x, self.y, self.prediction.T, alpha=0.25, shading="nearest", **colours)
        moved = self.end - self.start
        if moved.any():
            arrows = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.002, "color": "black"}
            axes.quiver(*self.start.T, *moved.T, **arrows)
        axes.scatter(*self.end.T, c=self.label, s=6, **colours)
        axes.set(aspect="equal", xlim=self.x[[0, -1]], ylim=self.y[[0, -1]])


def decision_map(
    model: keras.Model,
    examples: tuple[Any, Any],
    moved: Any = None,
    *,
    points: int = 201,
    seed: int = 0,
) -> DecisionMap:
    """What a classifier of points decides over the plane, and of points that are moved.

    Args:
        model: maps points `(B, 2)` in [0, 1] to logits `(B, K)`.
        examples: points `(N, 2)` float in [0, 1] and labels `(N,)`.
        moved: an `Attack` that moves them, or where they are moved to, `(N, 2)`; None: they stay.
        points: of the grid along each axis, >= 2.
        seed: of the attack.

    Raises:
        InputError: a model of other inputs than points in the plane, or arrays of a wrong kind.

    Source: ATLD (ICLR 2021 submission), Figures 1, 4, 6 and 7.

    >>> import keras_robust as kr
    >>> moons = kr.data.load("two_moons", "test", examples=50, seed=0)
    >>> decision_map(kr.models.build("mlp"), moons, kr.attacks.FGSM(eps=0.03), points=11).prediction.shape
    (11, 11)
    """
    shape = model.input_shape[1:]
    require(
        shape == (2,), f"Only points in the plane, (2,), can be drawn. Received: inputs of shape {shape}."
    )
    require(isinstance(points, int) and points >= 2, f"points must be an integer >= 2. Received: {points!r}.")
    start = check_images(examples[0], shape)
    label = check_labels(examples[1], model.output_shape[-1], len(start))
    end = moved(model, start, label, seed=seed) if isinstance(moved, Attack) else moved
    end = start if end is None else check_images(end, shape)
    require(len(end) == len(start), f"Give one point for each of {len(start)}. Received: {len(end)}.")
    shown = np.concatenate([start, end])
    low, high = shown.min(axis=0) - _MARGIN, shown.max(axis=0) + _MARGIN
    x, y = (np.linspace(low[axis], high[axis], points, dtype="float32") for axis in (0, 1))
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    prediction = np.asarray(model(grid.reshape(-1, 2), training=False)).argmax(axis=-1)
    return DecisionMap(x, y, prediction.reshape(points, points), start, end, label, classify(model, end))
