"""Batch normalisation of images and features in one operation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_robust")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation, as TensorFlow's one fused operation where that gives the same.

    Keras makes it of some ten passes over the feature maps, in float32 whatever the policy. Arguments,
    weights and their names are Keras's, and so are the numbers up to rounding.

    Fused are feature maps `(B, H, W, C)` and features `(B, C)` in float16, bfloat16 or float32, normalised
    over their last axis; a batch of no example leaves the averages as they are. What is masked,
    renormalised or `synchronized` between replicas, and all else, is left to Keras.

    Call arguments:
        inputs: float tensor of any rank >= 2.
        training: True normalises by the moments of the batch and moves the averages towards them; False and
            None normalise by the averages.
        mask: what to leave out of the moments, or None.

    Returns:
        Tensor of the inputs' shape in the layer's compute dtype.

    Source: Ioffe and Szegedy, ICML 2015, "Batch normalization".

    Example:
        >>> import numpy as np
        >>> maps = np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 2)).astype("float32")
        >>> outputs = BatchNormalization()(maps, training=True)
        >>> bool(abs(float(outputs.numpy().mean())) < 1e-4)
        True
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or not self._fuses(inputs):
            return super().call(inputs, training=training, mask=mask)
        maps = inputs if len(inputs.shape) == 4 else inputs[:, None, None]
        if training and self.trainable:
            outputs = self._by_moments(maps)
        else:
            known = {"mean": self.moving_mean, "variance": self.moving_variance}
            outputs, *_ = self._normalize(maps, is_training=False, **known)
        outputs = ops.cast(outputs, self.compute_dtype)
        return outputs if len(inputs.shape) == 4 else outputs[:, 0, 0]

    def _fuses(self, inputs: Any) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) in (2, 4)
            and self.axis in (-1, len(inputs.shape) - 1)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float16", "bfloat16", "float32")
            and not (self.synchronized or self.renorm)
        )

    def _by_moments(self, inputs: Any) -> Any:
        # XLA takes the variance as E[x²] - E[x]², in which a mean far from 0 would drown it.
        shift = ops.stop_gradient(inputs[:1, :1, :1])
        outputs, mean, variance = self._normalize(inputs - shift, is_training=True)
        count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), "float32")
        mean = mean + ops.sum(ops.cast(shift, "float32"), axis=(0, 1, 2))
        # The operation gives the unbiased variance of a batch.
        biased = variance * (count - 1.0) / ops.maximum(count, 1.0)
        self._follow(self.moving_mean, mean, count)
        self._follow(self.moving_variance, biased, count)
        return outputs

    def _normalize(self, inputs: Any, is_training: bool, **known: Any) -> Any:
        import tensorflow as tf

        channels = self.moving_mean.shape
        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else ops.ones(channels, "float32"),
            offset=ops.cast(self.beta, "float32") if self.center else ops.zeros(channels, "float32"),
            epsilon=self.epsilon,
            is_training=is_training,
            **{name: ops.cast(value, "float32") for name, value in known.items()},
        )

    def _follow(self, moving: keras.Variable, value: Any, count: Any) -> None:
        known = ops.cast(moving, "float32")
        value = ops.where(count > 0, value, known)  # a replica's part of the last batch may be empty
        moving.assign(known * self.momentum + value * (1.0 - self.momentum))
