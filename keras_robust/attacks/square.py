"""Square: random search with squares of shrinking size; it sees only the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_robust.attacks.base import Attack, attacks
from keras_robust.attacks.compiling import compiled, free_batch, gather, padded, scalar
from keras_robust.attacks.view import observe
from keras_robust.errors import require
from keras_robust.losses import margin
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, static_shape

_SEGMENT = 250  # queries between two looks at who still stands
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


class Search(NamedTuple):
    """The best images found so far and their margins `(B,)`, positive where misclassified."""

    images: Any
    margins: Any


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("square")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search in the Linf ball: a square of ±eps is kept where it raises the margin.

    Args:
        queries: forward passes per image, >= 1; an image stops at its first success.
        p_init: share of the pixels in the first squares, in (0, 1].

    It uses no gradient, so it also breaks models that only hide theirs. The position of a square is
    drawn for each image. Source: Andriushchenko et al. 2020, algorithm 2, with the schedule of its
    section 5.

    >>> Square(eps=0.3, queries=1000).black_box
    True
    """

    queries: int = 5000
    p_init: float = 0.8

    black_box: ClassVar[bool] = True
    budget: ClassVar[str | None] = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.norm == "linf", f'Square works in the "linf" ball. Received: norm={self.norm!r}.')
        require(self.queries >= 1, f"queries must be an integer >= 1. Received: queries={self.queries}.")
        require(0 < self.p_init <= 1, f"p_init must be in (0, 1]. Received: p_init={self.p_init}.")

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> np.ndarray:
        adversarial = images.copy()
        start, search = self._functions(model, images)
        active = np.arange(len(images))
        rows = padded(active, self.jit_compile)
        seed, eps = np.array(key, "int64"), np.float32(self.eps)
        state = start(images[rows], labels[rows], seed, eps)
        for first in range(1, self.queries, _SEGMENT):
            adversarial[active] = state.images[: len(active)]
            standing = np.flatnonzero(np.asarray(state.margins)[: len(active)] <= 0)
            if not standing.size:
                return adversarial
            active, state = active[standing], gather(state, padded(standing, self.jit_compile))
            rows = padded(active, self.jit_compile)
            sides = self._sides(images.shape, first, min(first + _SEGMENT, self.queries))
            state = search(images[rows], labels[rows], state, seed, eps, sides, np.int32(first))
        adversarial[active] = state.images[: len(active)]
        return adversarial

    def _sides(self, shape: tuple[int, ...], first: int, last: int) -> np.ndarray:
        """Side of the square at each query from `first` to `last`."""
        height, width = shape[1:3]
        progress = np.arange(first, last) * 10_000 // self.queries
        share = self.p_init / 2.0 ** np.searchsorted(_HALVINGS, progress, side="left")
        sides = np.maximum(np.round(np.sqrt(share * height * width)), 1)
        return np.minimum(sides, min(height, width) - 1 or 1).astype("int32")

    def _functions(self, model: keras.Model, images: np.ndarray) -> tuple[Any, Any]:
        def build_start() -> Any:
            def start(images: Any, labels: Any, key: Any, eps: Any) -> Search:
                threat = ThreatModel("linf", eps, self.bounds)
                return _stripes(model, threat, images, labels, _noise(key))

            return start

        def build_search() -> Any:
            def search(images: Any, labels: Any, state: Search, key: Any, eps: Any, sides: Any, first: Any):
                threat = ThreatModel("linf", eps, self.bounds)
                return _search(model, threat, images, labels, state, _noise(key), sides, first)

            return search

        image, label = free_batch(tf.convert_to_tensor(images)), tf.TensorSpec((None,), "int32")
        key, eps = tf.TensorSpec((2,), "int64"), scalar("float32")
        state = Search(image, tf.TensorSpec((None,), "float32"))
        sides = tf.TensorSpec((None,), "int32")
        static = ("square", self.bounds)
        return (
            compiled(model, (*static, "start"), build_start, (image, label, key, eps), self.jit_compile),
            compiled(
                model,
                (*static, "search"),
                build_search,
                (image, label, state, key, eps, sides, scalar("int32")),
                self.jit_compile,
            ),
        )


def _noise(key: Any) -> Noise:
    return Noise((key[0], key[1]))


def _stripes(model: keras.Model, threat: ThreatModel, images: Any, labels: Any, noise: Noise) -> Search:
    """The first query: vertical stripes of ±eps."""
    batch, _, width, channels = static_shape(images)
    signs = ops.sign(noise.uniform((batch, 1, width, channels), -1.0, 1.0))
    start = threat.clip(images + threat.eps * signs)
    return Search(start, margin(labels, observe(model, start).logits))


def _search(
    model: keras.Model,
    threat: ThreatModel,
    images: Any,
    labels: Any,
    state: Search,
    noise: Noise,
    sides: Any,
    first: Any,
) -> Search:
    """One query for each side in `sides`: put a square of ±eps, keep it where the margin rises."""
    batch, height, width, channels = static_shape(images)

    def query(count: Any, state: Search) -> tuple[Any, Search]:
        draw = noise.fold(first + count)
        side = sides[count]
        rows, columns = (_interval(length, side, draw, batch) for length in (height, width))
        inside = rows[:, :, None, None] & columns[:, None, :, None]
        signs = ops.sign(draw.uniform((batch, 1, 1, channels), -1.0, 1.0))
        moved = ops.where(inside, threat.clip(images + threat.eps * signs), state.images)
        margins = margin(labels, observe(model, moved).logits)
        better = (margins > state.margins) & (state.margins <= 0)
        keep = better[:, None, None, None]
        return count + 1, Search(
            ops.where(keep, moved, state.images), ops.where(better, margins, state.margins)
        )

    total = ops.shape(sides)[0]
    _, state = ops.while_loop(
        lambda count, _: count < total, query, (ops.zeros((), "int32"), state), maximum_iterations=total
    )
    return state


def _interval(length: int, side: Any, noise: Noise, batch: Any) -> Any:
    """Mask `(B, length)` of an interval of `side` pixels at a uniformly drawn place."""
    places = ops.cast(length - side + 1, "float32")
    first = ops.cast(ops.floor(noise.uniform((batch, 1)) * places), "int32")
    pixels = ops.arange(length, dtype="int32")[None, :]
    return (pixels >= first) & (pixels < first + side)
