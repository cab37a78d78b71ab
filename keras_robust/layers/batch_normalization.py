"""Batch normalisation of images in one operation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("keras_robust")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` by TensorFlow's one fused operation where that can take its place.

    Keras makes it of some ten passes over the feature maps, in float32 whatever the policy. Weights, their
    names and the numbers are the same (moving averages are of the biased variance, as Keras keeps them).

    Fused are feature maps `(B, H, W, C)` in float16, bfloat16 or float32, normalised over their last axis.
    All else, and what is `synchronized` between replicas, renormalised or masked, is Keras's own.

    Args:
        options: those of `keras.layers.BatchNormalization`.

    Source: Ioffe and Szegedy, ICML 2015, "Batch normalization".

    Example:
        >>> import numpy as np
        >>> BatchNormalization()(np.ones((2, 4, 4, 3), "float32")).shape
        TensorShape([2, 4, 4, 3])
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or not self._fuses(inputs):
            return super().call(inputs, training=training, mask=mask)
        if training and self.trainable:
            outputs, mean, variance = self._normalize(inputs, is_training=True)
            self._follow(self.moving_mean, mean)
            self._follow(self.moving_variance, variance * _bias(inputs))
        else:
            known = {"mean": self.moving_mean, "variance": self.moving_variance}
            outputs, *_ = self._normalize(inputs, is_training=False, **known)
        return ops.cast(outputs, self.compute_dtype)

    def _fuses(self, inputs: Any) -> bool:
        return (
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float16", "bfloat16", "float32")
            and not (self.synchronized or self.renorm)
        )

    def _normalize(self, inputs: Any, is_training: bool, **known: Any) -> Any:
        channels = (inputs.shape[-1],)
        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else ops.ones(channels, "float32"),
            offset=ops.cast(self.beta, "float32") if self.center else ops.zeros(channels, "float32"),
            epsilon=self.epsilon,
            is_training=is_training,
            **{name: ops.cast(value, "float32") for name, value in known.items()},
        )

    def _follow(self, moving: keras.Variable, value: Any) -> None:
        value = ops.cast(value, moving.dtype)
        moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


def _bias(inputs: Any) -> Any:
    """What the unbiased variance of a batch, which the operation gives, is multiplied with."""
    count = ops.cast(tf.size(inputs) // inputs.shape[-1], "float32")
    return (count - 1.0) / ops.maximum(count, 1.0)
