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


def values_and_jacobian(function: Callable[[Any], Any], images: Any) -> tuple[Any, Any]:
    """Values `(B, K)` of `function(images)` and the gradient of each, `(B, K, ...)`.

    As for `value_and_input_gradient` the examples do not interact, and weights are not watched.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(images)
        values = function(images)
        columns = tf.unstack(values, axis=1)
    gradients = [
        tape.gradient(column, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for column in columns
    ]
    return values, tf.stack(gradients, axis=1)


def gradient_in_loop(objective: Callable[[Any], Any], samples: int = 1) -> Callable[[Any], tuple[Any, Any]]:
    """`value_and_input_gradient` of `objective`, as one call within the body of a compiled loop.

    With `samples` above 1 the values and the gradient are means over as many passes; see `averaged`.
    Nothing but its result may leave `objective`.
    """
    return averaged(_not_inlined(lambda images: value_and_input_gradient(objective, images)), samples)


def jacobian_in_loop(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """`values_and_jacobian` of `function`, as one call within the body of a compiled loop."""
    return _not_inlined(lambda images: values_and_jacobian(function, images))


def averaged(look: Callable[[Any], Any], samples: int) -> Callable[[Any], Any]:
    """Expectation over transformation: `look` as a mean over `samples` calls, made one after the other.

    For a `look` at a model that draws random numbers at every call. It returns a nested structure of
    tensors; floats are averaged, of others those of the last call come back. It takes the memory of one
    call. Source: Athalye et al. 2018, "Synthesizing robust adversarial examples", section 2.1.
    """
    if samples == 1:
        return look

    def mean(images: Any) -> Any:
        def again(count: Any, sums: Any) -> tuple[Any, Any]:
            return count + 1, tf.nest.map_structure(_add, sums, look(images))

        _, sums = tf.while_loop(
            lambda count, _: count < samples,
            again,
            (tf.constant(1), look(images)),
            parallel_iterations=1,
            maximum_iterations=samples - 1,
        )
        return tf.nest.map_structure(lambda total: _divide(total, samples), sums)

    return mean


def _add(total: Any, tensor: Any) -> Any:
    return total + tensor if tensor.dtype.is_floating else tensor


def _divide(total: Any, count: int) -> Any:
    return total / count if total.dtype.is_floating else total


def _not_inlined(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`function` as one node of the graph around it.

    A loop's body is optimised as part of the graph around it, and there TensorFlow's remapper fuses
    convolutions so that they run up to 13 % slower on a CPU. A function that is not inlined is optimised
    by itself. Run eagerly there is no graph to keep it out of, and tracing it would be all the work.
    """
    if not tf.inside_function():
        return function
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
