"""What every builder does: check its options, and join an encoder and a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_robust.errors import InputError, require
from keras_robust.models.latent import LatentClassifier


def image_input(input_shape: Sequence[int], smallest: int, dtype: str | None) -> keras.KerasTensor:
    """The symbolic images `(B, H, W, C)`, after a check of their shape and of the dtype policy.

    Args:
        input_shape: `(height, width, channels)`.
        smallest: least height and width that the architecture can take.
        dtype: name of a Keras dtype policy or None.
    """
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    require(
        len(shape) == 3 and _are_positive(shape) and min(shape[:2]) >= smallest,
        f"input_shape must be (height, width, channels) with height and width of at least {smallest}; "
        f"received {input_shape!r}.",
    )
    require_policy(dtype)
    return keras.Input(shape, name="images")


def require_policy(dtype: str | None) -> None:
    """Check that `dtype` names a Keras dtype policy."""
    try:
        keras.dtype_policies.get(dtype)
    except (TypeError, ValueError):
        raise InputError(
            "dtype must be the name of a Keras dtype policy, such as 'float32' or 'mixed_bfloat16', or None; "
            f"received {dtype!r}."
        ) from None


def require_positive(**options: Any) -> None:
    """Check that the options are positive integers, or sequences of them."""
    for name, value in options.items():
        sizes = value if isinstance(value, (tuple, list)) else [value]
        require(len(sizes) > 0 and _are_positive(sizes), f"{name} must be positive; received {value!r}.")


def _are_positive(sizes: Sequence[Any]) -> bool:
    return all(isinstance(size, int) and size > 0 for size in sizes)


def logits_layer(num_classes: int) -> keras.layers.Layer:
    """The last layer: affine, float32 under any policy."""
    require_positive(num_classes=num_classes)
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")


def assemble(
    images: keras.KerasTensor, features: keras.KerasTensor, top: Sequence[keras.layers.Layer], name: str
) -> LatentClassifier:
    """The classifier whose latent is `features` in float32 and whose head is the layers `top`."""
    latent = keras.layers.Activation("linear", dtype="float32", name="latent")(features)
    outputs = inputs = keras.Input(latent.shape[1:], name="latent")
    for layer in top:
        outputs = layer(outputs)
    encoder = keras.Model(images, latent, name="encoder")
    head = keras.Model(inputs, outputs, name="head")
    return LatentClassifier(encoder, head, name=name)
