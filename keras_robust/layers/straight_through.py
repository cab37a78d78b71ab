"""A step without a useful gradient, with the identity's gradient in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_robust.errors import require


@keras.saving.register_keras_serializable("keras_robust")
class StraightThrough(keras.layers.Layer):
    """Computes a function or layer, and in the backward pass lets gradients through unchanged.

    Backward pass differentiable approximation (BPDA) by the identity: it fits functions f(x) near x whose
    own gradient is zero, missing or of no use, such as quantising, compressing or denoising.

    Args:
        function: a layer, or a function made of `keras.ops`, from a tensor to one of the same shape. To be
            saved it must be a layer or registered with `keras.saving.register_keras_serializable`.

    Its outputs are exactly those of `function`, cast to the dtype of the inputs. Weights of a wrapped layer
    get no gradient.

    Raises:
        InputError: `function` is not callable, or its output has another shape than its input.

    Source: Athalye et al. 2018, "Obfuscated gradients give a false sense of security", section 4.1.1.

    Example:
        >>> import keras
        >>> float(StraightThrough(keras.ops.round)(keras.ops.convert_to_tensor([0.7]))[0])
        1.0
    """

    def __init__(self, function: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(
            callable(function),
            f"StraightThrough takes a layer or a function. Received: {function!r} of type "
            f"{type(function).__name__}.",
        )
        self.function = function

    def call(self, inputs: Any) -> Any:
        outputs = self.function(inputs)
        require(
            _same_shape(inputs, outputs),
            "StraightThrough takes a function that keeps the shape of its input. Received: "
            f"{getattr(self.function, 'name', self.function)!r}, which turns {tuple(inputs.shape)} into "
            f"{tuple(outputs.shape)}.",
        )
        # The difference is exactly zero, and only it has a gradient.
        identity = inputs - ops.stop_gradient(inputs)
        return ops.stop_gradient(ops.cast(outputs, inputs.dtype)) + identity

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StraightThrough:
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})


def _same_shape(one: Any, other: Any) -> bool:
    """Whether two shapes agree as far as they are known."""
    pairs = zip(one.shape, other.shape, strict=False)
    return len(one.shape) == len(other.shape) and all(a == b or None in (a, b) for a, b in pairs)
