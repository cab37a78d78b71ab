"""Auto-PGD: projected ascent with momentum that chooses its own step size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.ascent import aim
from keras_robust.attacks.attempts import LikeliestTargets, RepeatedAttack
from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import gather, on_rows
from keras_robust.attacks.gradient import gradient_in_loop
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.objective import Objective, check_targetable, get_objective
from keras_robust.attacks.view import Goal, observe
from keras_robust.errors import require_count
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose, per_example

_MOMENTUM = 0.75  # alpha in the paper
_RHO = 0.75  # the step size is halved where fewer than this share of the steps raised the objective


class State(NamedTuple):
    """Where the ascent stands: images `(B, ...)`, numbers and flags `(B,)`."""

    images: Any
    previous: Any  # the iterate before
    gradient: Any  # at `images`
    value: Any  # the objective at `images`
    best: Any  # the iterate of highest objective, its gradient and its objective
    best_gradient: Any
    best_value: Any
    size: Any  # of the next step
    rises: Any  # steps since the last checkpoint that raised the objective
    halved: Any  # whether the last checkpoint halved the step size
    checked: Any  # `best_value` at the last checkpoint
    found: Any  # the last misclassified iterate
    fooled: Any  # whether there was one


def climb(
    model: Any,
    objective: Objective,
    threat: ThreatModel,
    images: Any,
    goal: Goal,
    state: State,
    *,
    first: Any,
    steps: Any,
    samples: int,
) -> State:
    """Steps `first` to `first + steps` and a checkpoint. Croce & Hein 2020, algorithm 1.

    Step 0 is not a step but the look at the start, from which the others go on. Each look is averaged over
    `samples` passes; whether an iterate is misclassified is seen in the last.
    """

    def value(candidates: Any) -> tuple[Any, Any]:
        view = observe(model, candidates)
        return objective(view, goal), ops.cast(ops.argmax(view.logits, axis=-1), "int32")

    look = gradient_in_loop(value, samples)

    def step(index: Any, state: State) -> State:
        moved = ops.where(index > 0, _ahead(state, index, threat, images), state.images)
        (values, classes), gradient = look(moved)
        fooled = classes != goal.labels
        better = ops.logical_or(values > state.best_value, index == 0)
        return state._replace(
            images=moved,
            previous=state.images,
            gradient=gradient,
            value=ops.where(index > 0, values, 0.0),  # the reference counts a first rise from 0
            best=choose(better, moved, state.best),
            best_gradient=choose(better, gradient, state.best_gradient),
            best_value=ops.where(better, values, state.best_value),
            rises=state.rises + ops.cast((values > state.value) & (index > 0), "float32"),
            checked=ops.where(index > 0, state.checked, values),
            found=choose(fooled, moved, state.found),
            fooled=state.fooled | fooled,
        )

    return repeated(step, state, steps, first)


def _ahead(state: State, index: Any, threat: ThreatModel, images: Any) -> Any:
    """The next iterate: a step along the gradient, mixed with the step before."""
    weight = ops.where(index > 1, _MOMENTUM, 1.0)
    step = threat.project(
        state.images + per_example(state.size, images) * threat.steepest(state.gradient), images
    )
    mixed = state.images + weight * (step - state.images) + (1.0 - weight) * (state.images - state.previous)
    return threat.project(mixed, images)


def checkpoint(state: State, steps: Any) -> State:
    """Halve the step size where the last `steps` steps gained too little, and return there to the best."""
    few_rises = state.rises <= _RHO * ops.cast(steps, "float32")
    no_gain = ops.logical_not(state.halved) & (state.checked >= state.best_value)
    halve = few_rises | no_gain
    return state._replace(
        images=choose(halve, state.best, state.images),
        gradient=choose(halve, state.best_gradient, state.gradient),
        size=ops.where(halve, state.size / 2.0, state.size),
        rises=ops.zeros_like(state.rises),
        halved=halve,
        checked=state.best_value,
    )


def checkpoints(steps: int) -> Iterator[int]:
    """Steps between checkpoints: 22 % of all at first, 3 % less each time, at least 6 %."""
    length, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    done = 0
    while done < steps:
        yield min(length, steps - done)
        done += length
        length = max(length - less, least)


def _stretches(steps: int) -> Iterator[tuple[int, int, int]]:
    """Up to each checkpoint: the number of the first look at the model, how many looks, how many steps."""
    first = 0
    for length in checkpoints(steps):
        looks = length if first else length + 1  # with the one at the start
        yield first, looks, length
        first += looks


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("apgd")
@dataclass(frozen=True, kw_only=True)
class APGD(RepeatedAttack):
    """Auto-PGD. Source: Croce & Hein 2020, algorithm 1 and section 3, as in the authors' code.

    Args:
        steps: number of gradient steps, >= 1.
        loss: what to climb; AutoAttack takes "cross_entropy", and "dlr" in its targeted part.
        samples: forward and backward passes over which each gradient is averaged, for a classifier that
            draws random numbers (expectation over transformation, Athalye et al. 2018).

    An example leaves the batch at the first checkpoint after an iterate of it was misclassified.

    Raises:
        InputError: an option that is not as described.

    >>> APGD(eps=0.3).steps
    100
    """

    steps: int = 100
    loss: Any = "cross_entropy"
    samples: int = 1

    budget: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(steps=self.steps, samples=self.samples)

    @property
    def objective(self) -> Objective:
        """The objective that is climbed."""
        return get_objective(self.loss)

    @property
    def least_classes(self) -> int:
        return self.objective.least_classes(self.has_targets)

    def perturb(self, model: keras.Model, images: Any, labels: Any, noise: Noise, targets: Any = None) -> Any:
        """Images of highest objective inside a graph, for use in a training step; no example leaves early."""
        objective = self.objective
        goal = aim(model, objective, images, labels, targets)
        state = self._begin(images, noise)
        for first, steps, length in _stretches(self.steps):
            state = climb(
                model,
                objective,
                self.threat,
                images,
                goal,
                state,
                first=first,
                steps=steps,
                samples=self.samples,
            )
            state = checkpoint(state, length)
        return ops.stop_gradient(state.best)

    def _attempt(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> np.ndarray:
        found = np.empty_like(images)
        active = np.arange(len(images))
        state = self._begin(ops.convert_to_tensor(images), noise)
        for first, steps, length in _stretches(self.steps):
            state = self._climb(model, images, labels, targets, state, active, first, steps, length)
            fooled = np.asarray(state.fooled)
            # One that fools this model nowhere may fool another.
            found[active] = choose(state.fooled, state.found, state.best)
            rows = np.flatnonzero(~fooled)
            if not rows.size:
                break
            active, state = active[rows], gather(state, rows)
        return found

    def _begin(self, images: Any, noise: Noise) -> State:
        number = ops.zeros(ops.shape(images)[:1])
        flag = ops.zeros_like(number, dtype="bool")
        start = self.threat.random_edge(images, noise)
        return State(
            images=start,
            previous=start,
            gradient=ops.zeros_like(start),
            value=number,
            best=start,
            best_gradient=ops.zeros_like(start),
            best_value=number,
            size=number + 2.0 * self.eps,
            rises=number,
            halved=ops.logical_not(flag),
            checked=number,
            found=start,
            fooled=flag,
        )

    def _climb(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        targets: Any,
        state: State,
        active: np.ndarray,
        *numbers: int,
    ) -> State:
        """The steps up to a checkpoint of the `active` examples, in the graph that all such attacks share."""
        objective, targeted, samples = self.objective, targets is not None, self.samples

        def build() -> Any:
            def run(
                images: Any,
                labels: Any,
                targets: Any,
                state: State,
                eps: Any,
                first: Any,
                steps: Any,
                length: Any,
            ):
                threat = ThreatModel(self.norm, eps, self.bounds)
                goal = aim(model, objective, images, labels, targets if targeted else None)
                state = climb(
                    model, objective, threat, images, goal, state, first=first, steps=steps, samples=samples
                )
                return checkpoint(state, length)

            return run

        key = ("apgd", objective, self.norm, self.bounds, targeted, samples)
        batch = (images[active], labels[active], (targets if targeted else labels)[active], state)
        scalars = (np.float32(self.eps), *map(np.int32, numbers))
        return on_rows(model, key, build, batch, scalars, self.jit_compile, objective.coupled)


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("apgd_targeted")
@dataclass(frozen=True, kw_only=True)
class APGDTargeted(LikeliestTargets, APGD):
    """Auto-PGD towards each of the likeliest other classes in turn, on the targeted DLR loss.

    Args:
        classes: how many of them, from the second likeliest on the clean image.

    Source: Croce & Hein 2020, section 4.1.

    >>> APGDTargeted(eps=0.1).classes
    9
    """

    loss: Any = "dlr"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targetable(self.objective)
