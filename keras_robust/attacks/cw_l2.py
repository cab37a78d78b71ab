"""Carlini and Wagner's L2 attack: the smallest perturbation as an optimisation without constraints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import gather, on_rows
from keras_robust.attacks.gradient import gradient_in_loop
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.minimal import MinimumNorm, Nearest, none_yet, segments
from keras_robust.attacks.view import observe
from keras_robust.errors import require, require_above_zero, require_count, require_not_negative
from keras_robust.losses import margin
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel

_DECAY, _SQUARE_DECAY, _ADAM_TINY = 0.9, 0.999, 1e-8  # of Adam
_FALLS = 0.9999  # the loss still falls while it is at most this share of what it was
_CHECKS = 10  # looks at the loss in one optimisation
_GROWTH = 10.0  # of the constant until it is large enough
_INSIDE = 0.999999  # keeps the tanh space finite at the bounds


class State(NamedTuple):
    """One optimisation: change in tanh space and Adam's moments `(B, ...)`; the rest `(B,)`."""

    change: Any
    mean: Any
    square: Any
    loss: Any  # mean over the segment, and over the one before
    before: Any
    success: Any  # whether this optimisation fooled the model
    nearest: Nearest


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("cw_l2")
@dataclass(frozen=True, kw_only=True)
class CWL2(MinimumNorm):
    """Minimise squared L2 distance + c max(confidence - margin, 0) by Adam, for the smallest c that works.

    Args:
        steps: of each optimisation, >= 1.
        binary_search_steps: optimisations, each with a better constant c for each example, >= 1.
        learning_rate: of Adam, in the space of which pixels are the tanh; > 0.
        initial_const: the first c, > 0.
        confidence: kappa: a misclassified image counts if another class's logit exceeds the label's by
            more than this, >= 0.
        abort_early: end an example's optimisation when over a tenth of the steps its loss does not fall.

    Raises:
        InputError: an option that is not as described.

    Source: Carlini & Wagner 2017, "Towards evaluating the robustness of neural networks", section VI.A.

    >>> CWL2(confidence=5.0).norm
    'l2'
    """

    norm: str = "l2"
    steps: int = 1000
    binary_search_steps: int = 9
    learning_rate: float = 0.01
    initial_const: float = 1e-3
    confidence: float = 0.0
    abort_early: bool = True

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    budget: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(steps=self.steps, binary_search_steps=self.binary_search_steps)
        require_above_zero(learning_rate=self.learning_rate, initial_const=self.initial_const)
        require_not_negative(confidence=self.confidence)
        require(
            isinstance(self.abort_early, bool),
            f"abort_early must be True or False. Received: abort_early={self.abort_early!r}.",
        )

    def _fools(self, labels: Any, logits: Any) -> Any:
        return margin(labels, logits) > self.confidence

    def _search(self, model: keras.Model, images: np.ndarray, labels: np.ndarray, noise: Noise) -> Nearest:
        nearest = none_yet(images)
        constants = np.full(len(images), self.initial_const, "float32")
        low, high = np.zeros_like(constants), np.full_like(constants, np.inf)
        for _ in range(self.binary_search_steps):
            rows = np.flatnonzero(self._seeks(nearest.distance))
            if not rows.size:
                break
            batch = (images[rows], labels[rows], constants[rows])
            start = _start(gather(nearest, rows))
            success = np.zeros(len(rows), bool)
            lengths = segments(self.steps, math.ceil(self.steps / _CHECKS))
            for part, state in self._walk(batch, start, lengths, self._steps(model)):
                nearest.write(rows[part], state.nearest)
                success[part] = state.success
            high[rows[success]] = constants[rows[success]]
            low[rows[~success]] = constants[rows[~success]]
            constants = np.where(np.isinf(high), _GROWTH * constants, (low + high) / 2.0)
        return nearest

    def _goes_on(self, state: State) -> np.ndarray:
        falls = np.asarray(state.loss) <= _FALLS * np.asarray(state.before)
        return super()._goes_on(state) & (falls | (not self.abort_early))

    def _steps(self, model: keras.Model) -> Any:
        """`(batch, state, first, count) -> state`, in the graph that all such attacks share."""

        def build() -> Any:
            def run(batch: Any, state: State, confidence: Any, rate: Any, first: Any, count: Any) -> State:
                threat = ThreatModel(self.norm, 0.0, self.bounds)
                images, labels, constants = batch
                loss = penalty(model, threat, images, labels, constants, confidence)
                return descend(loss, threat, images, state, rate, first, count)

            return run

        def advance(batch: Any, state: State, first: int, count: int) -> State:
            options = map(np.float32, (self.confidence, self.learning_rate))
            numbers = (*options, np.int32(first), np.int32(count))
            return on_rows(model, ("cw_l2", self.bounds), build, (batch, state), numbers, self.jit_compile)

        return advance


def penalty(
    model: keras.Model, threat: ThreatModel, images: Any, labels: Any, constants: Any, confidence: Any
) -> Callable[[Any], tuple[Any, Any, Any]]:
    """From a change in tanh space to the loss, the image that it makes, and whether that counts."""
    origin = _to_tanh(images, threat.bounds)
    start = _from_tanh(origin, threat.bounds)

    def loss(change: Any) -> tuple[Any, Any, Any]:
        candidates = _from_tanh(origin + change, threat.bounds)
        excess = margin(labels, observe(model, candidates).logits) - confidence
        size = ops.sum(ops.square(candidates - start), axis=tuple(range(1, len(images.shape))))
        return size + constants * ops.maximum(-excess, 0.0), candidates, excess > 0

    return loss


def descend(
    loss: Callable[[Any], tuple[Any, Any, Any]],
    threat: ThreatModel,
    images: Any,
    state: State,
    rate: Any,
    first: Any,
    count: Any,
) -> State:
    """Steps `first` to `first + count` of Adam down the loss."""
    look = gradient_in_loop(loss)

    def step(index: Any, state: State) -> State:
        (values, candidates, fooled), gradient = look(state.change)
        candidates = threat.clip(candidates)  # of rounding
        mean = _DECAY * state.mean + (1.0 - _DECAY) * gradient
        square = _SQUARE_DECAY * state.square + (1.0 - _SQUARE_DECAY) * ops.square(gradient)
        number = ops.cast(index + 1, "float32")
        unbiased = mean / (1.0 - _DECAY**number)
        scale = ops.sqrt(square / (1.0 - _SQUARE_DECAY**number)) + _ADAM_TINY
        return State(
            change=state.change - rate * unbiased / scale,
            mean=mean,
            square=square,
            loss=state.loss + values / ops.cast(count, "float32"),
            before=state.before,
            success=state.success | fooled,
            nearest=state.nearest.updated(candidates, fooled, threat.distance(candidates, images)),
        )

    state = state._replace(loss=ops.zeros_like(state.loss), before=state.loss)
    return repeated(step, state, count, first)


def _start(nearest: Nearest) -> State:
    zeros = ops.zeros_like(nearest.images)
    unknown = ops.full_like(nearest.distance, float("inf"))
    return State(zeros, zeros, zeros, unknown, unknown, ops.zeros_like(unknown, dtype="bool"), nearest)


def _to_tanh(images: Any, bounds: tuple[float, float]) -> Any:
    low, high = bounds
    return ops.arctanh(_INSIDE * (2.0 * (images - low) / (high - low) - 1.0))


def _from_tanh(points: Any, bounds: tuple[float, float]) -> Any:
    low, high = bounds
    return low + (high - low) * (ops.tanh(points) + 1.0) / 2.0
