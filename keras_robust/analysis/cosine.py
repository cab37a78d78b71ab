"""How close features lie to the direction of the class that is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.table import Table

from keras_robust.analysis.finding import Finding, columns
from keras_robust.analysis.pairs import pairs
from keras_robust.attacks.seen import Seen
from keras_robust.errors import InputError
from keras_robust.models.graph import inner_layers
from keras_robust.models.latent import require_head

_TINY = 1e-12
_PROBES = 8  # random unit vectors on which a head is shown to be affine
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CosineTable(Finding):
    """Cosine of the angle between each feature vector and the centre of the class predicted.

    Attributes:
        clean: `(N,)` in [-1, 1].
        attacked: `(N,)` in [-1, 1].
        clean_class: `(N,)` the class predicted, whose centre it is.
        attacked_class: `(N,)`.
    """

    clean: np.ndarray
    attacked: np.ndarray
    clean_class: np.ndarray
    attacked_class: np.ndarray

    def summary(self, label: int | None = None) -> tuple[tuple[int, float, float], ...]:
        """Number, mean and standard deviation, of the clean and of the attacked examples.

        Args:
            label: only of those predicted as this class; None: of all.
        """
        found = []
        for values, classes in ((self.clean, self.clean_class), (self.attacked, self.attacked_class)):
            chosen = values if label is None else values[classes == label]
            middle = (float(chosen.mean()), float(chosen.std())) if len(chosen) else (np.nan, np.nan)
            found.append((len(chosen), *middle))
        return tuple(found)

    @property
    def size(self) -> tuple[float, float]:
        return 7, 3.5

    def rows(self) -> Iterator[Sequence[Any]]:
        numbers = ("number", "mean", "std")
        yield "predicted", *(f"{kind} {number}" for kind in ("clean", "attacked") for number in numbers)
        for label in self._labels():
            yield "all" if label is None else label, *(n for side in self.summary(label) for n in side)

    def table(self) -> Table:
        table = columns("predicted", "clean", "mean", "std", "attacked", "mean", "std")
        _, *lines = self.rows()
        for name, *values in lines:
            table.add_row(str(name), *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values))
        return table

    def draw(self, figure: Any) -> None:
        axes, labels = figure.subplots(), self._labels()
        for side, kind in enumerate(("clean", "attacked")):
            _, means, deviations = np.array([self.summary(label)[side] for label in labels]).T
            places = np.arange(len(labels)) + 0.2 * (2 * side - 1)
            axes.bar(places, means, 0.4, yerr=deviations, label=kind)
        axes.set_xticks(range(len(labels)), ["all" if label is None else label for label in labels])
        axes.set(xlabel="predicted class", ylabel="cosine to its centre")
        axes.legend()

    def _labels(self) -> list[int | None]:
        return [None, *np.unique([self.clean_class, self.attacked_class]).tolist()]


def cosine_table(model: keras.Model, examples: tuple[Any, Any], attack: Any, *, seed: int = 0) -> CosineTable:
    """Cosine similarity of the features to the centre of the predicted class, clean and attacked.

    Args:
        model: a `LatentClassifier` whose head is linear: a `Dense` layer, or fixed centres by cosine or by
            squared distance. The centre of a class is its column of the weights.
        examples: images `(N, ...)` float in [0, 1] and labels `(N,)`.
        attack: an `Attack`, or adversarial images shaped like the images.
        seed: of the attack.

    Raises:
        InputError: no latent, or a head that is not linear.

    Source: MAT, ICLR 2021 submission, Table 5; there ± is not explained: here it is the standard deviation
    over examples.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=100, seed=0)
    >>> found = cosine_table(kr.zoo.load("at_digits"), digits, kr.attacks.FGSM(eps=0.15))
    >>> bool(found.clean.mean() > found.attacked.mean())
    True
    """
    centres = linear_centres(model)
    seen = pairs(model, examples, attack, seed)
    clean, attacked = (_cosines(side, centres) for side in (seen.clean, seen.attacked))
    return CosineTable(clean, attacked, seen.clean.classes, seen.attacked.classes)


def linear_centres(model: keras.Model) -> np.ndarray:
    """The weights by class, `(K, D)`, of a head that is affine in features of unit length.

    They are read off the head at unit vectors and their opposites, so that any layers will do that amount to
    such a head: an affine one, or fixed centres by cosine or by squared distance.
    """
    require_head("The angle to a class", model)
    shape = model.head.input_shape[1:]
    units = np.eye(int(np.prod(shape)))
    probes = np.random.default_rng(0).standard_normal((_PROBES, len(units)))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    ahead, behind, found = (_head(model, vectors, shape) for vectors in (units, -units, probes))
    weights = (ahead - behind) / 2
    expected = (ahead + behind).mean(axis=0) / 2 + probes @ weights
    scale = max(float(np.abs(weights).max()), _TINY)
    if not np.allclose(found, expected, rtol=0, atol=_TOLERANCE * scale):
        names = ", ".join(layer.name for layer in inner_layers(model.head))
        raise InputError(
            f"The head of {model.name!r} is not linear, so that its classes have no centres. Cut the model "
            f"before its last layer: keras_robust.models.split(model, at=<layer>). Its head has: {names}."
        )
    return weights.T


def _head(model: keras.Model, vectors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    latents = vectors.reshape(-1, *shape).astype("float32")
    return np.asarray(ops.convert_to_numpy(ops.cast(model.head(latents, training=False), "float32")), float)


def _cosines(seen: Seen, centres: np.ndarray) -> np.ndarray:
    centre = centres[seen.classes]
    sizes = np.linalg.norm(seen.latent, axis=1) * np.linalg.norm(centre, axis=1)
    return (seen.latent * centre).sum(axis=1) / np.maximum(sizes, _TINY)
