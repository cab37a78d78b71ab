"""What every builder does: check its options, and join an encoder and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_robust.errors import require, require_count
from keras_robust.models.heads import affine, center_head
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
    """Check that `dtype` names a Keras dtype policy that a network can be trained in."""
    try:
        policy = keras.dtype_policies.get(dtype)
    except (TypeError, ValueError):
        policy = None
    require(
        type(policy) is keras.DTypePolicy
        and all(map(keras.backend.is_float_dtype, (policy.compute_dtype, policy.variable_dtype))),
        "dtype must be the name of a Keras dtype policy of floats, such as 'float32' or 'mixed_bfloat16', or "
        f"None; received {dtype!r}.",
    )


def require_sizes(least: int = 1, **options: Any) -> None:
    """Check that the options are sequences of at least so many positive integers."""
    for name, value in options.items():
        require(
            isinstance(value, (tuple, list)) and len(value) >= least and _are_positive(value),
            f"{name} must be a sequence of positive integers, {least} or more; received {value!r}.",
        )


def _are_positive(sizes: Sequence[Any]) -> bool:
    return all(isinstance(size, int) and size > 0 for size in sizes)


def assemble(
    images: keras.KerasTensor,
    features: keras.KerasTensor,
    num_classes: int,
    head_options: Mapping[str, Any] | None,
    name: str,
    hidden: Sequence[keras.layers.Layer] = (),
) -> LatentClassifier:
    """The classifier that makes logits of `features`.

    Args:
        images, features: symbolic; the features become the latent, in float32.
        num_classes: number of logits.
        head_options: None: the layers `hidden` and an affine layer, float32 under any policy, follow the
            latent. A mapping: a head of fixed centres is in the place of all of them, see `center_head`.
        name: of the model.
        hidden: layers between the latent and the affine layer.
    """
    require_count(num_classes=num_classes)
    if head_options is None:
        top = [*hidden, affine(num_classes)]
    else:
        features, centers = center_head(features, num_classes, head_options)
        top = [centers]
    latent = keras.layers.Activation("linear", dtype="float32", name="latent")(features)
    outputs = inputs = keras.Input(latent.shape[1:], name="latent")
    for layer in top:
        outputs = layer(outputs)
    encoder = keras.Model(images, latent, name="encoder")
    head = keras.Model(inputs, outputs, name="head")
    return LatentClassifier(encoder, head, name=name)
