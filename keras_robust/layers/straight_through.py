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

    Backward pass differentiable approximation (BPDA), by the identity unless another function is given: it
    fits functions f(x) near x whose own gradient is zero, missing or of no use, such as quantising,
    compressing or denoising.

    Args:
        function: a layer, or a function made of `keras.ops`, from a tensor to one of the same shape. To be
            saved it must be a layer or registered with `keras.saving.register_keras_serializable`.
        backward: another such, near the first, whose gradient is taken; None: the identity.

    Its outputs are exactly those of `function`, cast to the dtype of the inputs. Weights of a wrapped layer
    get no gradient.

    Raises:
        InputError: no function, or its output has another shape than its input.

    Source: Athalye et al. 2018, "Obfuscated gradients give a false sense of security", section 4.1.1.

    Example:
        >>> import keras
        >>> float(StraightThrough(keras.ops.round)(keras.ops.convert_to_tensor([0.7]))[0])
        1.0
    """

    def __init__(
        self, function: Callable[[Any], Any], backward: Callable[[Any], Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for given in (function,) if backward is None else (function, backward):
            require(
                callable(given),
                f"StraightThrough takes a layer or a function. Received: {given!r} of type "
                f"{type(given).__name__}.",
            )
        self.function = function
        self.backward = backward

    def call(self, inputs: Any) -> Any:
        outputs = self.function(inputs)
        require(
            _same_shape(inputs, outputs),
            "StraightThrough takes a function that keeps the shape of its input. Received: "
            f"{getattr(self.function, 'name', self.function)!r}, which turns {tuple(inputs.shape)} into "
            f"{tuple(outputs.shape)}.",
        )
        stand_in = inputs if self.backward is None else ops.cast(self.backward(inputs), inputs.dtype)
        # The difference is exactly zero, and only it has a gradient.
        return ops.stop_gradient(ops.cast(outputs, inputs.dtype)) + (stand_in - ops.stop_gradient(stand_in))

    def exact_layers(self) -> list[keras.layers.Layer]:
        """What computes in float32 where a copy computes in bfloat16: it sees the inputs as they are."""
        return [self]

    def get_config(self) -> dict[str, Any]:
        functions = {"function": self.function, "backward": self.backward}
        return {**super().get_config(), **keras.saving.serialize_keras_object(functions)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StraightThrough:
        functions = {key: config.get(key) for key in ("function", "backward")}
        return cls(**{**config, **keras.saving.deserialize_keras_object(functions)})


def _same_shape(one: Any, other: Any) -> bool:
    """Whether two shapes agree as far as they are known."""
    pairs = zip(one.shape, other.shape, strict=False)
    return len(one.shape) == len(other.shape) and all(a == b or None in (a, b) for a, b in pairs)
