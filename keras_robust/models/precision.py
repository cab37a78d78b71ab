"""Reduced precision is for training and for searching; evaluation, the zoo and export run in float32."""

from __future__ import annotations

import weakref
from typing import Any

import keras

from keras_robust.models.graph import origins
from keras_robust.models.kept import kept_on
from keras_robust.models.rebuilding import rebuilt

_ORIGINAL = "_keras_robust_original"


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself if every layer computes in float32, otherwise a copy that does."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    return _float32_copy(model)


def bfloat16_copy(model: keras.Model) -> keras.Model:
    """A copy whose layers compute in bfloat16, all but the last with weights and what follows it.

    A layer may name others by a method `exact_layers` that compute in float32 too.
    It is kept on the model, and takes over the model's weights at each call.
    """
    copy = kept_on(model, "bfloat16", lambda: _in_bfloat16(model))
    copy.set_weights(model.get_weights())
    return copy


def original(model: keras.Model) -> keras.Model:
    """The model that a `bfloat16_copy` was made of; any other is its own."""
    return getattr(model, _ORIGINAL, lambda: model)()


def _in_bfloat16(model: keras.Model) -> keras.Model:
    copy = _float32_copy(model)
    setattr(copy, _ORIGINAL, weakref.ref(model))  # Keras would track the model itself as a part of its copy
    layers = list(copy._flatten_layers(include_self=False))
    exact = [part for layer in layers for part in getattr(layer, "exact_layers", list)()]
    for operation in origins(copy.outputs[0]):
        exact.append(operation)
        if getattr(operation, "weights", []):
            break
    for layer in layers:
        if not isinstance(layer, keras.Model) and not any(layer is part for part in exact):
            layer.dtype_policy = "mixed_bfloat16"
    return copy


def _float32_copy(model: keras.Model) -> keras.Model:
    return rebuilt(model, _with_float32_policies, "in float32, as another precision needs")


def _with_float32_policies(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: "float32" if key == "dtype" and _is_float_policy(value) else value
        for key, value in config.items()
    }


def _is_float_policy(dtype: Any) -> bool:
    return isinstance(dtype, dict) or (isinstance(dtype, str) and "float" in dtype)
