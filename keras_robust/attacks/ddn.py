"""DDN: the direction of the perturbation follows the gradient, its norm a simple rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import on_rows
from keras_robust.attacks.gradient import gradient_in_loop
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.minimal import MinimumNorm, Nearest, farthest, none_yet, segments
from keras_robust.attacks.view import observe
from keras_robust.errors import is_finite, require, require_above_zero, require_count
from keras_robust.losses import cross_entropy
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose, flat, per_example

_FIRST_STEP, _LAST_STEP = 1.0, 0.01  # lengths, with a cosine between them
_SEGMENT = 10  # steps between two looks at who goes on
_TINY = 1e-12


class State(NamedTuple):
    """Where the search is `(B, ...)`, the norm it allows itself `(B,)`, and what it found."""

    images: Any
    radius: Any
    nearest: Nearest


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("ddn")
@dataclass(frozen=True, kw_only=True)
class DDN(MinimumNorm):
    """Decoupled direction and norm: steps along the gradient of the cross-entropy on a sphere that
    shrinks where the image is misclassified and grows where it is not.

    Args:
        steps: number of gradient steps, >= 1.
        init_eps: radius of the first sphere, > 0, in the units of the images.
        gamma: by which share the radius changes in a step, in (0, 1).

    Raises:
        InputError: an option that is not as described.

    Source: Rony et al. 2019, "Decoupling direction and norm for efficient gradient-based L2 adversarial
    attacks and defenses", algorithm 1, without its rounding to 8 bits.

    >>> DDN(steps=1000).norm
    'l2'
    """

    norm: str = "l2"
    steps: int = 100
    init_eps: float = 1.0
    gamma: float = 0.05

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    budget: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(steps=self.steps)
        require_above_zero(init_eps=self.init_eps)
        require(
            is_finite(self.gamma) and 0 < self.gamma < 1,
            f"gamma must be in (0, 1). Received: gamma={self.gamma!r}.",
        )

    def _search(self, model: keras.Model, images: np.ndarray, labels: np.ndarray, noise: Noise) -> Nearest:
        nearest = none_yet(images)
        # Where the gradient vanishes any direction will do.
        fallback = noise.normal(images.shape)
        state = State(images, np.full(len(images), self.init_eps, "float32"), nearest)
        lengths = segments(self.steps, _SEGMENT)
        for rows, reached in self._walk((images, labels, fallback), state, lengths, self._steps(model)):
            nearest.write(rows, reached.nearest)
        return nearest

    def _steps(self, model: keras.Model) -> Any:
        """`(batch, state, first, count) -> state`, in the graph that all such attacks share."""

        def build() -> Any:
            def run(batch: Any, state: State, gamma: Any, first: Any, count: Any, total: Any) -> State:
                threat = ThreatModel(self.norm, 0.0, self.bounds)
                images, labels, fallback = batch

                def value(candidates: Any) -> tuple[Any, Any]:
                    logits = observe(model, candidates).logits
                    return cross_entropy(labels, logits), self._fools(labels, logits)

                return descend(value, threat, images, fallback, state, gamma, first, count, total)

            return run

        def advance(batch: Any, state: State, first: int, count: int) -> State:
            numbers = (np.float32(self.gamma), *map(np.int32, (first, count, self.steps)))
            return on_rows(model, ("ddn", self.bounds), build, (batch, state), numbers, self.jit_compile)

        return advance


def descend(
    value: Callable[[Any], tuple[Any, Any]],
    threat: ThreatModel,
    images: Any,
    fallback: Any,
    state: State,
    gamma: Any,
    first: Any,
    count: Any,
    total: Any,
) -> State:
    """Steps `first` to `first + count` of `total` up the `value`, which also tells who is misclassified."""
    look = gradient_in_loop(value)
    widest = farthest(threat, images)

    def step(index: Any, state: State) -> State:
        (_, fooled), gradient = look(state.images)
        nearest = state.nearest.updated(state.images, fooled, threat.distance(state.images, images))
        vanished = ops.all(flat(gradient) == 0, axis=1)
        direction = threat.steepest(choose(vanished, fallback, gradient))
        delta = state.images - images + _step_size(index, total) * direction
        radius = ops.minimum(state.radius * ops.where(fooled, 1.0 - gamma, 1.0 + gamma), widest)
        size = ops.maximum(threat.distance(delta, 0.0), _TINY)
        moved = threat.clip(images + delta * per_example(radius / size, delta))
        return State(moved, radius, nearest)

    return repeated(step, state, count, first)


def _step_size(index: Any, total: Any) -> Any:
    progress = ops.cast(index, "float32") / ops.cast(total, "float32")
    return _LAST_STEP + (_FIRST_STEP - _LAST_STEP) * (1.0 + ops.cos(math.pi * progress)) / 2.0
