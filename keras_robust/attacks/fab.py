"""FAB: walks along the decision boundary towards the image; finds small perturbations of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_robust.attacks.attempts import LikeliestTargets, require_count
from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import gather, on_rows
from keras_robust.attacks.gradient import gradient_in_loop
from keras_robust.attacks.hyperplane import step_to_hyperplane
from keras_robust.attacks.view import observe
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose, per_example

_OVERSHOOT = 1.05  # eta
_BIAS = 0.1  # alpha_max: how far the walk is drawn to the image
_BACKWARD = 0.9  # beta: where on the way to a found image the walk goes on
_SEGMENT = 10  # steps between two looks at who still stands
_TINY = 1e-8


class State(NamedTuple):
    """Where the walk is `(B, ...)`, and the nearest misclassified image with its distance `(B,)`."""

    images: Any
    found: Any
    distance: Any


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("fab_targeted")
@dataclass(frozen=True, kw_only=True)
class FABTargeted(LikeliestTargets):
    """Fast adaptive boundary attack towards each of the likeliest other classes in turn.

    Args:
        steps: of each walk, >= 1.
        classes: target classes, from the second likeliest on the clean image.

    A walk ends at the first misclassified image inside the ball; outside it nothing is returned but the
    image itself. Restarts after the first begin at a random point. Source: Croce & Hein 2020, "Minimally
    distorted adversarial examples with a fast adaptive boundary attack", with the authors' settings in
    AutoAttack.

    >>> FABTargeted(eps=0.3).steps
    100
    """

    steps: int = 100

    budget: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("steps", self.steps)

    def _attempt(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> np.ndarray:
        found = images.copy()
        active = np.arange(len(images))
        start = ops.convert_to_tensor(images)
        state = State(start, start, ops.full(ops.shape(start)[:1], float("inf")))
        for done in range(0, self.steps, _SEGMENT):
            steps = min(_SEGMENT, self.steps - done)
            state = self._walk(model, images, labels, targets, state, active, steps)
            inside = np.asarray(state.distance) <= self.eps
            found[active[inside]] = tf.boolean_mask(state.found, inside)
            rows = np.flatnonzero(~inside)
            if not rows.size:
                break
            active, state = active[rows], gather(state, rows)
        return found

    def _walk(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        targets: np.ndarray,
        state: State,
        active: np.ndarray,
        steps: int,
    ) -> State:
        """`steps` steps of the `active` examples, in the graph that all such attacks share."""

        def build() -> Any:
            def run(images: Any, labels: Any, targets: Any, state: State, steps: Any) -> State:
                return walk(
                    model, ThreatModel(self.norm, 0.0, self.bounds), images, labels, targets, state, steps
                )

            return run

        batch = (images[active], labels[active], targets[active], state)
        key = ("fab", self.norm, self.bounds)
        return on_rows(model, key, build, batch, (np.int32(steps),), self.jit_compile)


def walk(
    model: keras.Model, threat: ThreatModel, images: Any, labels: Any, targets: Any, state: State, steps: Any
) -> State:
    """`steps` steps along the linearised boundary between label and target. FAB, algorithm 1."""

    def difference(candidates: Any) -> Any:
        logits = observe(model, candidates).logits
        return _of(targets, logits) - _of(labels, logits)

    look = gradient_in_loop(difference)
    flat_images = _flat(images)

    def step(count: Any, state: State) -> tuple[Any, State]:
        values, gradient = look(state.images)
        normal, here = _flat(gradient), _flat(state.images)
        offset = ops.sum(normal * here, axis=1) - values
        to_boundary = step_to_hyperplane(here, normal, offset, threat.norm, threat.bounds)
        from_image = step_to_hyperplane(flat_images, normal, offset, threat.norm, threat.bounds)
        size_here, size_image = (
            ops.maximum(threat.distance(move, ops.zeros_like(move)), _TINY)
            for move in (to_boundary, from_image)
        )
        bias = per_example(ops.minimum(size_here / (size_here + size_image), _BIAS), here)
        moved = (here + _OVERSHOOT * to_boundary) * (1.0 - bias)
        moved = threat.clip(moved + (flat_images + _OVERSHOOT * from_image) * bias)
        moved = ops.reshape(moved, ops.shape(images))
        classes = ops.cast(ops.argmax(observe(model, moved).logits, axis=-1), "int32")
        fooled = classes != labels
        distance = threat.distance(moved, images)
        nearer = fooled & (distance < state.distance)
        return count + 1, State(
            choose(fooled, images + (moved - images) * _BACKWARD, moved),
            choose(nearer, moved, state.found),
            ops.where(nearer, distance, state.distance),
        )

    _, state = ops.while_loop(
        lambda count, _: count < steps, step, (ops.zeros((), "int32"), state), maximum_iterations=steps
    )
    return state


def _of(classes: Any, logits: Any) -> Any:
    return ops.sum(ops.where(ops.one_hot(classes, logits.shape[-1], dtype="bool"), logits, 0.0), axis=-1)


def _flat(images: Any) -> Any:
    return ops.reshape(images, (ops.shape(images)[0], -1))
