"""What an adversary may do to an image: a ball around it, inside the pixel bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from keras import ops

from keras_robust.errors import is_finite, require, require_choice
from keras_robust.noise import Noise

_TINY = 1e-12
_TINIEST = 1e-37


def per_example(values: Any, like: Any) -> Any:
    """One value an example, `(B,)`, in a shape that broadcasts against `like` `(B, ...)`."""
    return ops.reshape(values, (-1,) + (1,) * (len(like.shape) - 1))


def choose(rows: Any, chosen: Any, other: Any) -> Any:
    """`chosen` `(B, ...)` in the `rows` `(B,)` that are true, `other` elsewhere."""
    return ops.where(per_example(rows, chosen), chosen, other)


def flat(x: Any) -> Any:
    """`(B, ...)` as `(B, D)`; not by -1, which nothing determines where a replica has no example."""
    return ops.reshape(x, (ops.shape(x)[0], math.prod(x.shape[1:])))


def _l2(x: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(flat(x)), axis=1))


class Linf:
    """The maximum norm: every pixel may move by eps.

    >>> import numpy as np
    >>> Linf.project(np.array([[0.3, -0.1]], "float32"), 0.25).numpy().tolist()
    [[0.25, -0.10000000149011612]]
    """

    @staticmethod
    def size(delta: Any) -> Any:
        return ops.max(ops.abs(flat(delta)), axis=1, initial=0.0)

    @staticmethod
    def project(delta: Any, eps: Any) -> Any:
        return ops.clip(delta, -eps, eps)

    @staticmethod
    def steepest(gradient: Any) -> Any:
        return ops.sign(gradient)

    @staticmethod
    def random(shape: Any, noise: Noise) -> Any:
        return noise.uniform(shape, -1.0, 1.0)


class L2:
    """The Euclidean norm of the flattened image.

    >>> import numpy as np
    >>> L2.size(np.array([[3.0, 4.0]], "float32")).numpy().tolist()
    [5.0]
    """

    @staticmethod
    def size(delta: Any) -> Any:
        return _l2(delta)

    @staticmethod
    def project(delta: Any, eps: Any) -> Any:
        return delta * per_example(ops.minimum(1.0, eps / ops.maximum(_l2(delta), _TINY)), delta)

    @staticmethod
    def steepest(gradient: Any) -> Any:
        # Scaled first: in float32 the squares of a confident model's tiny gradients are zero.
        scaled = gradient / per_example(ops.maximum(Linf.size(gradient), _TINIEST), gradient)
        return scaled / per_example(ops.maximum(_l2(scaled), _TINY), scaled)

    @staticmethod
    def random(shape: Any, noise: Noise) -> Any:
        direction = L2.steepest(noise.normal(shape))
        dimension = math.prod(shape[1:])
        radius = noise.uniform((shape[0],)) ** (1.0 / dimension)
        return direction * per_example(radius, direction)


NORMS = {"linf": Linf, "l2": L2}


@dataclass(frozen=True)
class ThreatModel:
    """A norm ball of radius `eps` around each image, cut with the pixel bounds.

    Args:
        norm: "linf" or "l2".
        eps: radius in the units of the images ([0, 1]); a non-negative number, `math.inf` for
            no limit, or a scalar tensor.
        bounds: lowest and highest pixel value.

    Source: Madry et al. 2018, section 2.

    >>> import numpy as np
    >>> threat = ThreatModel("linf", eps=0.1)
    >>> x = np.full((1, 2, 2, 1), 0.95, "float32")
    >>> float(threat.project(x + 0.5, x).numpy().max())
    1.0
    """

    norm: str = "linf"
    eps: Any = 0.0
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        require_choice("norm", self.norm, NORMS)
        if not ops.is_tensor(self.eps):
            require(
                self.eps == math.inf or (is_finite(self.eps) and self.eps >= 0),
                f"eps must be a finite number >= 0 in image units, or inf. Received: eps={self.eps!r}.",
            )
        require(
            isinstance(self.bounds, Sequence)
            and len(self.bounds) == 2
            and all(isinstance(bound, Real) for bound in self.bounds)
            and self.bounds[0] < self.bounds[1],
            f"bounds must be (low, high) with low < high. Received: bounds={self.bounds!r}.",
        )

    @property
    def _norm(self) -> Any:
        return NORMS[self.norm]

    def project(self, adversarial: Any, images: Any) -> Any:
        """The nearest point of the ball around `images`, clipped to the bounds. Shapes `(B, ...)`."""
        return self.clip(images + self._norm.project(adversarial - images, self.eps))

    def clip(self, images: Any) -> Any:
        """`images` clipped to the pixel bounds."""
        return ops.clip(images, *self.bounds)

    def random_start(self, images: Any, noise: Noise) -> Any:
        """A point drawn uniformly from the ball around each of `images`, clipped to the bounds."""
        return self.clip(images + self.eps * self._norm.random(static_shape(images), noise))

    def random_edge(self, images: Any, noise: Noise) -> Any:
        """A random point at distance eps of each of `images`, clipped to the bounds: Auto-PGD's start."""
        drawn = self._norm.random(static_shape(images), noise)
        unit = drawn / per_example(ops.maximum(self._norm.size(drawn), _TINY), drawn)
        return self.clip(images + self.eps * unit)

    def steepest(self, gradient: Any) -> Any:
        """The direction of unit size along which a linear function with this gradient rises fastest."""
        return self._norm.steepest(gradient)

    def distance(self, adversarial: Any, images: Any) -> Any:
        """Size of each perturbation in this norm, `(B,)`."""
        return self._norm.size(adversarial - images)


def static_shape(images: Any) -> tuple[Any, ...]:
    """Shape with a dynamic batch size and static other dimensions."""
    return (ops.shape(images)[0], *(int(size) for size in images.shape[1:]))
