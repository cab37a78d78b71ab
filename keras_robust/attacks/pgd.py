"""Projected gradient descent and its relatives: the same climb with other options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.ascent import Rule, State, aim, begin, climb, result
from keras_robust.attacks.attempts import RepeatedAttack
from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import gather, on_rows
from keras_robust.attacks.objective import Objective, check_targetable, get_objective
from keras_robust.attacks.predictions import predict_classes
from keras_robust.errors import require, require_above_zero, require_count, require_not_negative
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel

_STARTS = (None, "uniform", "normal")
_NORMAL_SCALE = 0.001  # TRADES starts at x + 0.001 N(0, 1)


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(RepeatedAttack):
    """Projected gradient descent. Source: Madry et al. 2018.

    Args:
        steps: number of gradient steps, >= 1.
        step_size: length of a step in the attack's norm; None means 2.5 eps / steps.
        loss: what to climb: "cross_entropy", "margin", "dlr", "kl", "reverse_kl", an `Objective`, a
            `keras.losses.Loss`, or a callable `(labels, logits) -> (B,)`.
        start: "uniform" in the ball, "normal" (x + 0.001 N(0, 1), as TRADES) or None (the image itself).
        restarts: independent runs; only examples not yet misclassified take part in the next.
        momentum: decay of the accumulated gradient (MIM), or None.
        keep_best: return the iterate of highest loss instead of the last.
        check_every: stop early: every so many steps leave out examples already misclassified.
        samples: forward and backward passes over which each gradient is averaged, for a classifier that
            draws random numbers (expectation over transformation, Athalye et al. 2018).
        targeted: move towards `targets` instead of away from `labels`.

    eps, step size and steps are tensors inside: changing them does not retrace.

    Raises:
        InputError: an option that is not as described.

    >>> attack = PGD(eps=0.3, steps=40, step_size=0.01)
    >>> attack.targeted
    False
    """

    steps: int = 20
    step_size: float | None = None
    loss: Any = "cross_entropy"
    start: str | None = "uniform"
    momentum: float | None = None
    keep_best: bool = False
    check_every: int | None = None
    samples: int = 1
    targeted: bool = False

    budget: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(steps=self.steps, samples=self.samples)
        if self.check_every is not None:
            require_count(check_every=self.check_every)
        if self.step_size is not None:
            require_above_zero(step_size=self.step_size)
        if self.momentum is not None:
            require_not_negative(momentum=self.momentum)
        require(
            self.start in _STARTS,
            f"start must be one of {', '.join(map(repr, _STARTS))}. Received: start={self.start!r}.",
        )
        objective = self.objective
        if self.targeted:
            check_targetable(objective)

    @property
    def has_targets(self) -> bool:
        return self.targeted

    @property
    def objective(self) -> Objective:
        """The objective that is climbed."""
        return get_objective(self.loss)

    @property
    def least_classes(self) -> int:
        return self.objective.least_classes(self.has_targets)

    @property
    def rule(self) -> Rule:
        """The static options of the climb."""
        return Rule(self.momentum, self.keep_best, self.samples)

    def step(self) -> float:
        """The step size in use."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size

    def perturb(self, model: keras.Model, images: Any, labels: Any, noise: Noise, targets: Any = None) -> Any:
        """Adversarial images inside a graph, for use in a training step; see `__call__` otherwise."""
        goal = aim(model, self.objective, images, labels, targets)
        state = begin(self._begin(images, noise), self.rule)
        state = climb(
            model,
            self.objective,
            self.threat,
            images,
            goal,
            state,
            steps=self.steps,
            step_size=self.step(),
            rule=self.rule,
        )
        return ops.stop_gradient(result(state, self.rule))

    def _begin(self, images: Any, noise: Noise) -> Any:
        if self.start == "uniform":
            return self.threat.random_start(images, noise)
        if self.start == "normal":
            moved = images + _NORMAL_SCALE * noise.normal(ops.shape(images))
            return self.threat.project(moved, images)
        return images

    def _check_targets(self, targets: Any) -> None:
        require(
            (targets is not None) == self.targeted,
            "targets are given if and only if targeted=True. "
            f"Received: targeted={self.targeted}, targets={targets!r}.",
        )

    def _fooled(self, model: keras.Model, images: Any, labels: np.ndarray, targets: Any) -> np.ndarray:
        if self.targeted:
            return np.asarray(predict_classes(model, images, self.jit_compile)) == targets
        return super()._fooled(model, images, labels, targets)

    def _attempt(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> np.ndarray:
        """One climb from one start; with `check_every`, segments that leave out the misclassified."""
        found = np.empty_like(images)
        active = np.arange(len(images))
        state = begin(self._begin(ops.convert_to_tensor(images), noise), self.rule)
        for steps in self._segments():
            state = self._climb(model, images, labels, targets, state, active, steps)
            found[active] = result(state, self.rule)
            if self.check_every is None:
                break
            goal = (labels[active], None if targets is None else targets[active])
            rows = np.flatnonzero(~self._fooled(model, found[active], *goal))
            if not rows.size:
                break
            active, state = active[rows], gather(state, rows)
        return found

    def _segments(self) -> Iterator[int]:
        length = self.check_every or self.steps
        for done in range(0, self.steps, length):
            yield min(length, self.steps - done)

    def _climb(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        targets: Any,
        state: State,
        active: np.ndarray,
        steps: int,
    ) -> State:
        """`steps` steps of the `active` examples in the loop that attacks with these options share."""
        objective, rule, targeted = self.objective, self.rule, targets is not None

        def build() -> Any:
            def run(images: Any, labels: Any, targets: Any, state: State, eps: Any, size: Any, steps: Any):
                threat = ThreatModel(self.norm, eps, self.bounds)
                goal = aim(model, objective, images, labels, targets if targeted else None)
                return climb(
                    model, objective, threat, images, goal, state, steps=steps, step_size=size, rule=rule
                )

            return run

        key = ("climb", objective, self.norm, self.bounds, rule, targeted)
        batch = (images[active], labels[active], (targets if targeted else labels)[active], state)
        numbers = (np.float32(self.eps), np.float32(self.step()), np.int32(steps))
        return on_rows(model, key, build, batch, numbers, self.jit_compile, objective.coupled)


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(PGD):
    """Fast gradient sign method: one full step from the image itself. Goodfellow et al. 2015.

    >>> FGSM(eps=0.1).step()
    0.1
    """

    steps: int = 1
    start: str | None = None

    budget: ClassVar[str | None] = None

    def step(self) -> float:
        return self.eps if self.step_size is None else self.step_size


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("bim")
@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """Basic iterative method: PGD from the image itself. Kurakin et al. 2017.

    >>> BIM(eps=0.1, steps=10).start is None
    True
    """

    start: str | None = None


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("mim")
@dataclass(frozen=True, kw_only=True)
class MIM(BIM):
    """Momentum iterative method: BIM along the accumulated normalised gradient. Dong et al. 2018.

    >>> MIM(eps=0.1, steps=10).momentum
    1.0
    """

    momentum: float | None = 1.0


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("cw")
@dataclass(frozen=True, kw_only=True)
class CW(PGD):
    """PGD on Carlini and Wagner's margin with confidence 50, as CW-Linf is evaluated (Madry et al.).

    >>> CW(eps=0.1, steps=40).loss
    'margin'
    """

    loss: Any = "margin"


@dataclass(frozen=True, kw_only=True)
class _OwnTargets(PGD):
    """Base of targeted attacks that choose their targets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.targeted, f"{type(self).__name__} chooses its own targets. Received: targeted=True.")
        check_targetable(self.objective)

    @property
    def has_targets(self) -> bool:
        return True


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("multi_targeted")
@dataclass(frozen=True, kw_only=True)
class MultiTargeted(_OwnTargets):
    """Targeted PGD towards every other class in turn; any misclassification ends it.

    Source: the multi-targeted evaluation of ADR (Bui et al. 2020), Gowal et al. 2019.

    >>> MultiTargeted(eps=0.1, steps=20).has_targets
    True
    """

    def _attempts(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> Iterator[Any]:
        num_classes = model.output_shape[-1]
        for _ in range(self.restarts):
            for shift in range(1, num_classes):
                yield (labels + shift) % num_classes


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("random_targeted")
@dataclass(frozen=True, kw_only=True)
class RandomTargeted(_OwnTargets):
    """Targeted PGD towards another class drawn at random, one for each image and restart.

    Weaker than an untargeted attack on an honest classifier: where it finds more, gradients are masked.
    Source: the targeted evaluation of MMC (Pang et al. 2020).

    >>> RandomTargeted(eps=0.1, steps=20, restarts=2).has_targets
    True
    """

    def _attempts(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> Iterator[Any]:
        num_classes = model.output_shape[-1]
        for _ in range(self.restarts):
            shifts = 1 + np.floor((num_classes - 1) * noise.uniform(labels.shape)).astype(labels.dtype)
            yield (labels + shifts) % num_classes
