"""The one place that takes a gradient with respect to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def value_and_input_gradient(objective: Callable[[Any], Any], images: Any) -> tuple[Any, Any]:
    """Values `(B,)` of `objective(images)` and the gradient of their sum, shaped like `images`.

    The examples of a batch do not interact in an objective, so the gradient of the sum holds each
    example's own gradient. Weights are not watched.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        values = objective(images)
    return values, tape.gradient(values, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)
