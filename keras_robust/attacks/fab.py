"""FAB: walks along the decision boundary towards the image; finds small perturbations of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.attempts import LikeliestTargets, RepeatedAttack
from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import gather, on_rows
from keras_robust.attacks.gradient import gradient_in_loop, jacobian_in_loop
from keras_robust.attacks.hyperplane import step_to_hyperplane
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.minimal import MinimumNorm, Nearest, farthest, none_yet, segments
from keras_robust.attacks.view import observe
from keras_robust.errors import require_count
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose, flat, per_example

_OVERSHOOT = 1.05  # eta
_BIAS = 0.1  # alpha_max: how far the walk is drawn to the image
_BACKWARD = 0.9  # beta: where on the way to a found image the walk goes on
_SEGMENT = 10  # steps between two looks at who goes on
_TINY = 1e-8

# A boundary made linear at images (B, ...): value (B,), positive beyond it, and gradient (B, ...).
Linearisation = Callable[[Any], tuple[Any, Any]]


class State(NamedTuple):
    """Where the walk is `(B, ...)`, and what it found."""

    images: Any
    nearest: Nearest


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("fab")
@dataclass(frozen=True, kw_only=True)
class FAB(MinimumNorm, RepeatedAttack):  # in this order eps is without limit by default
    """Fast adaptive boundary attack: each step goes to the class whose linearised boundary is closest.

    Args:
        steps: of each walk, >= 1.
        restarts: walks; those after the first begin at a random point, half as far away as what is found.

    A step costs as many backward passes as there are classes. Source: Croce & Hein 2020, "Minimally
    distorted adversarial examples with a fast adaptive boundary attack", algorithm 1, with the authors'
    settings in AutoAttack.

    Raises:
        InputError: an option that is not as described.

    >>> FAB(norm="l2").steps
    100
    """

    steps: int = 100

    budget: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(steps=self.steps)

    def _search(self, model: keras.Model, images: np.ndarray, labels: np.ndarray, noise: Noise) -> Nearest:
        nearest = none_yet(images)
        for number, targets in enumerate(self._attempts(model, images, labels, None, noise)):
            rows = np.flatnonzero(self._seeks(nearest.distance))
            if not rows.size:
                break
            batch = (images[rows], labels[rows], (labels if targets is None else targets)[rows])
            state = State(images[rows], gather(nearest, rows))
            if number % self.restarts:
                state = state._replace(images=self._random_start(*state, noise.fold(number)))
            for part, reached in self._walk(batch, state, segments(self.steps, _SEGMENT), self._steps(model)):
                nearest.write(rows[part], reached.nearest)
        return nearest

    def _random_start(self, images: Any, nearest: Nearest, noise: Noise) -> Any:
        limit = ops.minimum(farthest(self.threat, images), self.eps)
        radius = ops.minimum(nearest.distance, limit) / 2.0
        return ThreatModel(self.norm, per_example(radius, images), self.bounds).random_edge(images, noise)

    def _steps(self, model: keras.Model) -> Any:
        """`(batch, state, first, count) -> state`, in the graph that all such attacks share."""

        def build() -> Any:
            def run(batch: Any, state: State, count: Any) -> State:
                images, labels, targets = batch
                threat = ThreatModel(self.norm, 0.0, self.bounds)
                linearised = self._linearised(model, threat, labels, targets)

                def fools(candidates: Any) -> Any:
                    return self._fools(labels, observe(model, candidates).logits)

                return walk(threat, linearised, fools, images, state, count)

            return run

        def advance(batch: Any, state: State, first: int, count: int) -> State:
            key = (type(self), self.norm, self.bounds)
            return on_rows(model, key, build, (batch, state), (np.int32(count),), self.jit_compile)

        return advance

    def _linearised(
        self, model: keras.Model, threat: ThreatModel, labels: Any, targets: Any
    ) -> Linearisation:
        """The boundary to step to."""
        return closest_boundary(model, threat, labels)


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("fab_targeted")
@dataclass(frozen=True, kw_only=True)
class FABTargeted(FAB, LikeliestTargets):
    """Fast adaptive boundary attack towards each of the likeliest other classes in turn.

    Args:
        classes: target classes, from the second likeliest on the clean image.

    Source: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", where it is part of AutoAttack.

    >>> FABTargeted(eps=0.3).classes
    9
    """

    def _linearised(
        self, model: keras.Model, threat: ThreatModel, labels: Any, targets: Any
    ) -> Linearisation:
        return boundary_to(model, labels, targets)


def boundary_to(model: keras.Model, labels: Any, targets: Any) -> Linearisation:
    """The boundary between label and target."""

    def difference(candidates: Any) -> Any:
        logits = observe(model, candidates).logits
        return _of(targets, logits) - _of(labels, logits)

    return gradient_in_loop(difference)


def closest_boundary(model: keras.Model, threat: ThreatModel, labels: Any) -> Linearisation:
    """Of the boundaries between the label and each other class, the one that is closest once linear."""

    def differences(candidates: Any) -> Any:
        logits = observe(model, candidates).logits
        return logits - _of(labels, logits)[:, None]

    look = jacobian_in_loop(differences)

    def linearised(images: Any) -> tuple[Any, Any]:
        values, jacobian = look(images)
        gradients = ops.reshape(jacobian, (-1, *images.shape[1:]))
        slopes = ops.sum(flat(gradients * threat.steepest(gradients)), axis=1)  # their dual norms
        distances = ops.abs(values) / (ops.reshape(slopes, ops.shape(values)) + _TINY)
        own = ops.one_hot(labels, values.shape[-1], dtype="bool")
        closest = ops.argmin(ops.where(own, float("inf"), distances), axis=1)
        return _of(closest, values), _of(closest, jacobian)

    return linearised


def walk(
    threat: ThreatModel,
    linearised: Linearisation,
    fools: Callable[[Any], Any],
    images: Any,
    state: State,
    steps: Any,
) -> State:
    """`steps` steps along a linearised boundary. FAB, algorithm 1."""
    flat_images = flat(images)

    def step(_: Any, state: State) -> State:
        values, gradient = linearised(state.images)
        normal, here = flat(gradient), flat(state.images)
        offset = ops.sum(normal * here, axis=1) - values
        to_boundary = step_to_hyperplane(here, normal, offset, threat.norm, threat.bounds)
        from_image = step_to_hyperplane(flat_images, normal, offset, threat.norm, threat.bounds)
        size_here, size_image = (
            ops.maximum(threat.distance(move, 0.0), _TINY) for move in (to_boundary, from_image)
        )
        bias = per_example(ops.minimum(size_here / (size_here + size_image), _BIAS), here)
        moved = (here + _OVERSHOOT * to_boundary) * (1.0 - bias)
        moved = threat.clip(moved + (flat_images + _OVERSHOOT * from_image) * bias)
        moved = ops.reshape(moved, ops.shape(images))
        fooled = fools(moved)
        nearest = state.nearest.updated(moved, fooled, threat.distance(moved, images))
        return State(choose(fooled, images + (moved - images) * _BACKWARD, moved), nearest)

    return repeated(step, state, steps)


def _of(classes: Any, values: Any) -> Any:
    """Of `values` `(B, K, ...)` those of one class for each example, `(B, ...)`."""
    chosen = ops.one_hot(classes, values.shape[1], dtype="bool")
    wide = ops.reshape(chosen, (-1, values.shape[1]) + (1,) * (len(values.shape) - 2))
    return ops.sum(ops.where(wide, values, 0.0), axis=1)
