"""Virtual adversarial perturbations: where the prediction changes fastest, whatever the label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.ascent import aim
from keras_robust.attacks.attempts import RepeatedAttack
from keras_robust.attacks.base import attacks
from keras_robust.attacks.compiling import on_rows
from keras_robust.attacks.gradient import gradient_in_loop
from keras_robust.attacks.loops import repeated
from keras_robust.attacks.objective import KL
from keras_robust.attacks.view import observe
from keras_robust.errors import require_above_zero, require_count
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, choose, static_shape

_SPHERE = ThreatModel("l2")


def divergence_from(model: Any, images: Any) -> Callable[[Any], Any]:
    """KL(f(x) || f(x')) as a function of x', one value per example."""
    objective = KL()
    goal = aim(model, objective, images, labels=None)
    return lambda moved: objective(observe(model, moved), goal)


def steepest_direction(
    divergence: Callable[[Any], Any], images: Any, start: Any, xi: Any, iterations: Any
) -> Any:
    """The direction in which the divergence from `images` rises fastest near them, by power iteration.

    At x itself the divergence has no gradient. That at x + xi · d is about xi · H d with the Hessian H:
    normalised and fed back in, it turns towards H's dominant eigenvector.

    Args:
        start: directions shaped like `images`, of any length; so is the result.
        xi: length of the finite difference in the L2 norm.
        iterations: how often the direction is fed back in.
    """
    look = gradient_in_loop(divergence)

    def turn(_: Any, direction: Any) -> Any:
        return look(images + xi * _SPHERE.steepest(direction))[1]

    return repeated(turn, start, iterations)


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("vat")
@dataclass(frozen=True, kw_only=True)
class VAT(RepeatedAttack):
    """Virtual adversarial training's perturbation: one full step along the power iteration's direction d.

    eps · d / ‖d‖ in the L2 ball, eps · sign(d) in the Linf ball; labels are not looked at. The Hessian
    does not tell d from -d: in training the step goes along d as it comes, while a call takes of both the
    one that changes the prediction more.

    Args:
        iterations: power iterations, >= 1; each takes one gradient.
        xi: length of the finite difference in the L2 norm of the image, > 0. The default can be told from
            0 in bfloat16, where the 1e-6 of the authors cannot.

    Raises:
        InputError: an option that is not as described.

    Source: Miyato et al. 2018, "Virtual adversarial training", section 3.3.

    >>> VAT(eps=0.3).iterations
    1
    """

    iterations: int = 1
    xi: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(iterations=self.iterations)
        require_above_zero(xi=self.xi)

    def perturb(self, model: keras.Model, images: Any, labels: Any, noise: Noise, targets: Any = None) -> Any:
        """Adversarial images inside a graph, for use in a training step; see `__call__` otherwise."""
        start = noise.normal(static_shape(images))
        divergence = divergence_from(model, images)
        direction = steepest_direction(divergence, images, start, self.xi, self.iterations)
        return ops.stop_gradient(_moved(self.threat, images, direction))

    def _attempt(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, noise: Noise
    ) -> np.ndarray:
        def build() -> Any:
            def run(images: Any, start: Any, eps: Any, xi: Any, iterations: Any) -> Any:
                threat = ThreatModel(self.norm, eps, self.bounds)
                divergence = divergence_from(model, images)
                direction = steepest_direction(divergence, images, start, xi, iterations)
                along, against = (_moved(threat, images, way) for way in (direction, -direction))
                return choose(divergence(along) >= divergence(against), along, against)

            return run

        batch = (images, noise.normal(images.shape))
        numbers = (np.float32(self.eps), np.float32(self.xi), np.int32(self.iterations))
        moved = on_rows(model, ("vat", self.norm, self.bounds), build, batch, numbers, self.jit_compile)
        return np.asarray(moved)


def _moved(threat: ThreatModel, images: Any, direction: Any) -> Any:
    return threat.project(images + threat.eps * threat.steepest(direction), images)
