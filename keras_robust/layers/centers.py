"""Fixed class centres: how they are made, and the last layers that classify by them."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.directions import unit
from keras_robust.errors import InputError, require, require_above_zero

_SHARPNESSES = (8.0, 32.0, 128.0, 512.0)  # of the smooth maximum that the search lowers, in turn


def max_mahalanobis_centers(num_classes: int, dim: int, scale: float = 1.0) -> np.ndarray:
    """Class centres of equal length that are as far apart as they can be.

    With `dim >= num_classes - 1` they are the vertices of a regular simplex, in closed form: every cosine
    between two of them is -1 / (num_classes - 1), the least that is possible. In fewer dimensions a search
    lowers the largest cosine; it begins at the same place at every call.

    Args:
        num_classes: number of centres L, >= 2.
        dim: of the feature space, >= 1; at least 2 for more than two classes.
        scale: length of every centre, > 0.

    Returns:
        float64 array `(num_classes, dim)`.

    Raises:
        InputError: an argument is not as described.

    Source: Pang et al., ICLR 2020 (MMC), algorithm 1. For `dim < num_classes - 1` its code lowers the largest
    cosine too; here L-BFGS on a smooth maximum does.

    >>> centers = max_mahalanobis_centers(3, 2)
    >>> (centers @ centers.T).round(6).tolist()
    [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    check_num_classes(num_classes)
    least = 1 if num_classes == 2 else 2
    require(
        isinstance(dim, int) and dim >= least,
        f"dim must be an integer >= {least} for {num_classes} centres. Received: dim={dim!r}.",
    )
    check_scale(scale)
    if dim < num_classes - 1:
        return scale * _spread(num_classes, dim)
    return scale * np.pad(_simplex(num_classes), [(0, 0), (0, dim - num_classes + 1)])


def _simplex(num_classes: int) -> np.ndarray:
    """The vertices of a regular simplex on the unit sphere, `(L, L - 1)`.

    The recursion of algorithm 1 is the Cholesky factorisation of the matrix of their dot products. The last
    centre adds no dimension: all of them sum to zero.
    """
    count = num_classes - 1
    dots = np.full((count, count), -1 / count)
    np.fill_diagonal(dots, 1.0)
    others = np.linalg.cholesky(dots)
    return np.vstack([others, -others.sum(axis=0)])


@cache
def _spread(num_classes: int, dim: int) -> np.ndarray:
    """Unit vectors `(L, dim)` whose largest cosine is small, for `dim < L - 1`."""
    from scipy.optimize import minimize

    found = np.random.default_rng(0).normal(size=num_classes * dim)
    for sharpness in _SHARPNESSES:
        options = {"maxiter": 200}
        found = minimize(_crowding, found, (dim, sharpness), "L-BFGS-B", jac=True, options=options).x
    return _unit(found.reshape(-1, dim))


def _crowding(flat: np.ndarray, dim: int, sharpness: float) -> tuple[float, np.ndarray]:
    """A smooth maximum of the cosines between the vectors `(L * dim,)`, and its gradient."""
    vectors = flat.reshape(-1, dim)
    units = _unit(vectors)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    top = cosines.max()
    weights = np.exp(sharpness * (cosines - top))
    total = weights.sum()
    pull = 2 * (weights / total) @ units
    across = pull - (pull * units).sum(axis=1, keepdims=True) * units
    gradient = across / np.linalg.norm(vectors, axis=1, keepdims=True)
    return top + np.log(total) / sharpness, gradient.ravel()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Centers(keras.layers.Layer):
    """Base of the last layers that hold fixed centres, one for each class.

    Args:
        num_classes: number of classes L, >= 2.
        scale: see the layer, > 0.
        dtype: Keras dtype policy; float32 by default, whatever the global policy.
        options: those of `keras.layers.Layer`.

    Attributes:
        centers: `(L, d)` of length 1, one of `max_mahalanobis_centers` in each row. They never train.

    Call arguments:
        features: `(B, d)`.
    """

    def __init__(self, num_classes: int, scale: float, dtype: Any = "float32", **options: Any) -> None:
        super().__init__(dtype=dtype, **options)
        check_num_classes(num_classes)
        check_scale(scale)
        self.num_classes = num_classes
        self.scale = scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        dim = input_shape[-1] if len(input_shape) == 2 else None
        if dim is None:
            raise InputError(
                f"{type(self).__name__} takes features (B, d). Received: shape {tuple(input_shape)}."
            )
        values = max_mahalanobis_centers(self.num_classes, dim)
        self.centers = self.add_weight(
            values.shape,
            lambda shape, dtype: ops.convert_to_tensor(values, dtype),
            trainable=False,
            name="centers",
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes, "scale": self.scale}


@keras.saving.register_keras_serializable("keras_robust")
class CosineCenters(Centers):
    """The logit transformation: an affine layer without bias whose rows are fixed centres.

    logit_k = scale · <features, mu_k>. Centres have one length, so the largest logit is that of the centre
    with the largest cosine: a classifier by cosine becomes one that attacks and exports can take.

    Args:
        num_classes: number of classes L, >= 2.
        scale: length of the centres, > 0; changes no prediction.
        normalize: take the features at length 1: the logits are `scale` times the cosines. Predictions stay
            the same, but features that are long can no longer flatten the gradients of an attack.
        options: those of `keras.layers.Layer`; the dtype is float32 by default.

    Raises:
        InputError: an option is not as described, or features that are not `(B, d)`.

    Source: MAT (ICLR 2021 submission), section 3 (prediction by cosine, and its transformation to logits).

    Example: the same classifier for an attack that features cannot evade by their length.
        >>> import keras, keras_robust as kr
        >>> model = kr.models.build("small_cnn", head={"name": "cosine_centers"})
        >>> features = keras.Input(model.head.input_shape[1:])
        >>> head = keras.Model(features, CosineCenters(10, scale=10.0, normalize=True)(features))
        >>> kr.models.LatentClassifier(model.encoder, head).output_shape
        (None, 10)
    """

    def __init__(self, num_classes: int, scale: float = 1.0, normalize: bool = False, **options: Any) -> None:
        super().__init__(num_classes, scale, **options)
        self.normalize = normalize

    def call(self, features: Any) -> Any:
        if self.normalize:
            features = ops.cast(unit(features), features.dtype)
        return self.scale * ops.matmul(features, ops.transpose(self.centers))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "normalize": self.normalize}


@keras.saving.register_keras_serializable("keras_robust")
class DistanceCenters(Centers):
    """Logits that fall with the distance to fixed centres: logit_k = -||features - scale · mu_k||².

    Args:
        num_classes: number of classes L, >= 2.
        scale: length of the centres, > 0.
        options: those of `keras.layers.Layer`; the dtype is float32 by default.

    Raises:
        InputError: an option is not as described, or features that are not `(B, d)`.

    Source: Pang et al., ICLR 2020 (MMC), whose code has centres of length 10.

    >>> import numpy as np
    >>> DistanceCenters(2, scale=1.0)(np.array([[3.0]], "float32")).numpy().tolist()
    [[-4.0, -16.0]]
    """

    def __init__(self, num_classes: int, scale: float = 10.0, **options: Any) -> None:
        super().__init__(num_classes, scale, **options)

    def call(self, features: Any) -> Any:
        # The square expanded, so that no (B, L, d) is made.
        dots = self.scale * ops.matmul(features, ops.transpose(self.centers))
        squares = ops.sum(ops.square(features), axis=-1, keepdims=True)
        return 2 * dots - squares - self.scale**2


def check_num_classes(num_classes: int) -> None:
    """Refuse what is no number of centres."""
    require(
        isinstance(num_classes, int) and num_classes >= 2,
        f"num_classes must be an integer >= 2. Received: num_classes={num_classes!r}.",
    )


def check_scale(scale: float) -> None:
    """Refuse what is no length of centres."""
    require_above_zero(scale=scale)
