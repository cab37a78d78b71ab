"""The one place that takes a gradient with respect to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def value_and_input_gradient(objective: Callable[[Any], Any], images: Any) -> tuple[Any, Any]:
    """Values `(B,)` of `objective(images)` and the gradient of their sum, shaped like `images`.

    The examples of a batch do not interact in an objective, so the gradient of the sum holds each
    example's own gradient. Weights are not watched. An objective may return a tuple, of which the
    first item is the values; the tuple comes back whole in the place of the values.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        seen = objective(images)
        values = seen[0] if isinstance(seen, tuple) else seen
    return seen, tape.gradient(values, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def gradient_in_loop(objective: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """`value_and_input_gradient` of `objective`, as one call within the body of a compiled loop.

    A loop's body is optimised as part of the graph around it, and there TensorFlow's remapper fuses
    convolutions so that they run up to 13 % slower on a CPU. A function that is not inlined is optimised
    by itself. Nothing but its result may leave `objective`.
    """
    return tf.function(
        lambda images: value_and_input_gradient(objective, images),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
