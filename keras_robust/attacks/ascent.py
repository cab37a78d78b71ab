"""Projected steepest ascent: the one loop behind every gradient attack."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_robust.attacks.gradient import averaged, gradient_in_loop
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.objective import Objective
from keras_robust.attacks.view import Goal, observe
from keras_robust.threat import ThreatModel, choose


class State(NamedTuple):
    """Where the ascent stands; every field has the shape of the images but `best_values` `(B,)`.

    Without momentum `velocity`, and without keep-best `best` and `best_values`, are empty tuples.
    """

    images: Any
    velocity: Any = ()
    best: Any = ()
    best_values: Any = ()


class Rule(NamedTuple):
    """Static options of a climb: decay of the momentum (None: none), whether the best is kept, and over how
    many passes of a random model the objective and its gradient are averaged."""

    momentum: float | None = None
    keep_best: bool = False
    samples: int = 1


def begin(start: Any, rule: Rule) -> State:
    """The state before the first step from the images `start`."""
    return State(
        start,
        ops.zeros_like(start) if rule.momentum is not None else (),
        start if rule.keep_best else (),
        ops.full(ops.shape(start)[:1], float("-inf")) if rule.keep_best else (),
    )


def aim(model: Any, objective: Objective, images: Any, labels: Any, targets: Any = None) -> Goal:
    """The goal of an attack on `images`, with the clean view if the objective asks for it."""
    return Goal(labels, targets, observe(model, images) if objective.needs_clean else None)


def climb(
    model: Any,
    objective: Objective,
    threat: ThreatModel,
    images: Any,
    goal: Goal,
    state: State,
    *,
    steps: Any,
    step_size: Any,
    rule: Rule,
) -> State:
    """Take `steps` steps of `step_size` up `objective`, staying in `threat`'s ball around `images`.

    `steps`, `step_size` and `threat.eps` may be tensors. The model runs with `training=False`.
    """

    def value(candidates: Any) -> Any:
        return objective(observe(model, candidates), goal)

    ascent = gradient_in_loop(value, rule.samples)

    def step(_: Any, state: State) -> State:
        values, gradient = ascent(state.images)
        state = _remember(state, values, rule)
        if rule.momentum is not None:
            state = state._replace(velocity=rule.momentum * state.velocity + _unit_l1(gradient))
            gradient = state.velocity
        moved = state.images + step_size * threat.steepest(gradient)
        return state._replace(images=threat.project(moved, images))

    state = repeated(step, state, steps)
    if not rule.keep_best:
        return state
    return _remember(state, averaged(value, rule.samples)(state.images), rule)


def result(state: State, rule: Rule) -> Any:
    """The adversarial images: the best seen, or the last."""
    return state.best if rule.keep_best else state.images


def _remember(state: State, values: Any, rule: Rule) -> State:
    if not rule.keep_best:
        return state
    better = values > state.best_values
    return state._replace(
        best=choose(better, state.images, state.best),
        best_values=ops.where(better, values, state.best_values),
    )


def _unit_l1(gradient: Any) -> Any:
    axes = tuple(range(1, len(gradient.shape)))
    return gradient / ops.maximum(ops.mean(ops.abs(gradient), axis=axes, keepdims=True), 1e-30)
