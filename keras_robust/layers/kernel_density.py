"""Kernel density of codes within a class."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_robust.errors import require_above_zero, require_count

_NONE = -1e30  # the log-density of a class without centres: finite, so that gradients are


@keras.saving.register_keras_serializable("keras_robust")
class KernelDensity(keras.layers.Layer):
    """Log-density of each code among the centres of a class, with a Gaussian kernel.

    log (1/n) Σ N(code; centre, bandwidth² I) over the n centres of the class. The kernel is that of
    `sklearn.neighbors.KernelDensity`; ER's sigma is √2 times the bandwidth.

    Args:
        num_centers: number of centres, all classes together, >= 1.
        bandwidth: of the kernel, in the units of the codes, > 0.
        options: those of `keras.layers.Layer`.

    Weights: `centers` `(num_centers, D)` and `classes` `(num_centers,)` int32, neither trainable; set them
    with `set_centers`.

    Call arguments:
        inputs: `(codes, classes)`, `(B, D)` and `(B,)` integers.

    Returns:
        `(B,)` float32.

    Raises:
        InputError: an option that is not as described.

    Source: ER-Classifier (ICCV 2021), section 3.3; Feinman et al. 2017.

    >>> import numpy as np
    >>> layer = KernelDensity(num_centers=1, bandwidth=1.0)
    >>> layer.set_centers(np.zeros((1, 1)), np.array([0]))
    >>> float(layer((np.zeros((1, 1), "float32"), np.array([0])))[0])  # -log(2 pi) / 2
    -0.9189385175704956
    """

    def __init__(self, num_centers: int, bandwidth: float, dtype: Any = "float32", **options: Any) -> None:
        super().__init__(dtype=dtype, **options)
        require_count(num_centers=num_centers)
        require_above_zero(bandwidth=bandwidth)
        self.num_centers = num_centers
        self.bandwidth = float(bandwidth)

    def build(self, input_shape: Any) -> None:
        features = input_shape[0][-1]
        self.centers = self.add_weight((self.num_centers, features), "zeros", trainable=False, name="centers")
        self.classes = self.add_weight(
            (self.num_centers,), "zeros", dtype="int32", trainable=False, name="classes"
        )

    def set_centers(self, centers: Any, classes: Any) -> None:
        """Give the centres `(num_centers, D)` and the class of each `(num_centers,)`."""
        if not self.built:
            self.build([(None, centers.shape[-1]), (None,)])
        self.centers.assign(centers)
        self.classes.assign(classes)

    def call(self, inputs: Any) -> Any:
        codes, classes = inputs
        shift = ops.mean(self.centers, axis=0)  # near zero the squares below lose the fewest digits
        exponents = -_squared_distances(codes - shift, self.centers - shift) / (2.0 * self.bandwidth**2)
        within = ops.expand_dims(ops.cast(classes, "int32"), 1) == self.classes
        counts = ops.sum(ops.cast(within, "float32"), axis=1)
        kernels = ops.logsumexp(ops.where(within, exponents, _NONE), axis=1)
        normalizer = codes.shape[-1] * (math.log(self.bandwidth) + 0.5 * math.log(2.0 * math.pi))
        return kernels - ops.log(ops.maximum(counts, 1.0)) - normalizer

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0][0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_centers": self.num_centers, "bandwidth": self.bandwidth}


def _squared_distances(points: Any, centers: Any) -> Any:
    """`(B, N)`, from one product of matrices."""
    lengths = ops.sum(ops.square(points), axis=1, keepdims=True) + ops.sum(ops.square(centers), axis=1)
    return ops.maximum(lengths - 2.0 * ops.matmul(points, ops.transpose(centers)), 0.0)
