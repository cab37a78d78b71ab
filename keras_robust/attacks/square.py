"""Square: random search with squares of shrinking size; it sees only the logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.base import Attack, attacks
from keras_robust.attacks.compiling import gather, on_rows
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.predictions import predict_logits
from keras_robust.attacks.square_proposals import PROPOSALS, Proposals
from keras_robust.attacks.view import observe
from keras_robust.errors import is_finite, require, require_count
from keras_robust.losses import margin
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose, static_shape

_SEGMENTS = (16, 256)  # queries between two looks at who still stands: at first, when most fall, and at most
_PLANNED = 10_000  # queries
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of so many


class Search(NamedTuple):
    """The best images found so far and their margins `(B,)`, positive where misclassified."""

    images: Any
    margins: Any


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("square")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search in the ball: a change of a square window is kept where it raises the margin.

    Args:
        queries: forward passes per image, >= 1, the one at the start included; an image is left as it is
            from its first success on.
        p_init: share of the pixels in the first squares, in (0, 1].
        rescale: shrink the squares as fast as `queries` runs out; False: as in a search of 10,000 queries,
            which is AutoAttack's way.

    It uses no gradient, so it also breaks models that only hide theirs. The squares are drawn for each
    image. Source: Andriushchenko et al. 2020, algorithms 1 to 3, with the schedule of its section 5.

    Raises:
        InputError: an option that is not as described.

    >>> Square(eps=0.3, queries=1000).black_box
    True
    """

    queries: int = 5000
    p_init: float = 0.8
    rescale: bool = True

    black_box: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = tuple(PROPOSALS)
    budget: ClassVar[str | None] = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(queries=self.queries)
        require(
            is_finite(self.p_init) and 0 < self.p_init <= 1,
            f"p_init must be in (0, 1]. Received: p_init={self.p_init!r}.",
        )

    def check(self, model: keras.Model) -> None:
        super().check(model)
        require(
            len(model.input_shape) == 4,
            f"{type(self).__name__} draws squares in images (N, H, W, C). Received: a model of inputs "
            f"{model.input_shape}.",
        )

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> np.ndarray:
        start = PROPOSALS[self.norm](self.threat, ops.convert_to_tensor(images)).start(Noise(key))
        state = Search(start, margin(labels, predict_logits(model, start, self.jit_compile)))
        found = np.array(start)
        active = np.arange(len(images))
        for first, last in _segments(self.queries):
            standing = np.flatnonzero(np.asarray(state.margins) <= 0)
            if not standing.size:
                break
            active, state = active[standing], gather(state, standing)
            state = self._search(model, images[active], labels[active], state, first, last, key)
            found[active] = state.images
        return found

    def _search(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        state: Search,
        first: int,
        last: int,
        key: tuple[int, int],
    ) -> Search:
        """The queries from `first` to `last`, in the graph that all such attacks share."""

        def build() -> Any:
            def run(images: Any, labels: Any, state: Search, key: Any, eps: Any, sides: Any, first: Any):
                proposals = PROPOSALS[self.norm](ThreatModel(self.norm, eps, self.bounds), images)
                noise = Noise((key[0], key[1])).fold(first)
                return search(model, proposals, labels, state, sides, noise)

            return run

        sides = self._sides(images.shape, first, last)
        numbers = (np.array(key, "int64"), np.float32(self.eps), sides, np.int32(first))
        static = ("square", self.norm, self.bounds)
        return on_rows(model, static, build, (images, labels, state), numbers, self.jit_compile)

    def _sides(self, shape: tuple[int, ...], first: int, last: int) -> np.ndarray:
        """Side of the square at each query from `first` to `last`."""
        height, width = shape[1:3]
        progress = np.arange(first, last)
        if self.rescale:
            progress = progress * _PLANNED // self.queries
        share = self.p_init / 2.0 ** np.searchsorted(_HALVINGS, progress, side="left")
        ideal = np.round(np.sqrt(share * height * width)).astype("int32")
        return PROPOSALS[self.norm].sides(ideal, min(height, width))


def _segments(queries: int) -> Iterator[tuple[int, int]]:
    """The first query of each segment and the first after it."""
    first, length = 1, _SEGMENTS[0]
    while first < queries:
        last = min(first + length, queries)
        yield first, last
        first, length = last, min(2 * length, _SEGMENTS[1])


def search(
    model: keras.Model, proposals: Proposals, labels: Any, state: Search, sides: Any, noise: Noise
) -> Search:
    """One query for each of `sides`: look at a proposal, keep it where the margin rises."""
    batch, *_, channels = static_shape(state.images)
    total = ops.shape(sides)[0]
    # All at once, which costs less than small draws at every query.
    draws = ops.swapaxes(noise.uniform((batch, total, proposals.draws(channels))), 0, 1)

    def query(number: Any, state: Search) -> Search:
        proposed = proposals(state.images, sides[number], draws[number])
        margins = margin(labels, observe(model, proposed).logits)
        better = (margins > state.margins) & (state.margins <= 0)
        images = choose(better, proposed, state.images)
        return Search(images, ops.where(better, margins, state.margins))

    return repeated(query, state, total)
