"""Reduced precision is for training and for searching; evaluation, the zoo and export run in float32."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import InputError
from keras_robust.models.graph import last_operation
from keras_robust.models.kept import kept_on


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself if every layer computes in float32, otherwise a copy that does."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    return _float32_copy(model)


def bfloat16_copy(model: keras.Model) -> keras.Model:
    """A copy whose layers compute in bfloat16, all but the one that gives the logits.

    It is kept on the model, and takes over the model's weights at each call.
    """
    copy = kept_on(model, "bfloat16", lambda: _in_bfloat16(model))
    copy.set_weights(model.get_weights())
    return copy


def _in_bfloat16(model: keras.Model) -> keras.Model:
    copy = _float32_copy(model)
    logits = last_operation(copy)
    for layer in copy._flatten_layers(include_self=False):
        if layer is not logits and not isinstance(layer, keras.Model):
            layer.dtype_policy = "mixed_bfloat16"
    return copy


def _float32_copy(model: keras.Model) -> keras.Model:
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        copy = keras.saving.deserialize_keras_object(_with_float32_policies(config))
        copy.set_weights(model.get_weights())
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"The model's config does not rebuild it in float32, as another precision needs: {error}"
        ) from error
    return copy


def _with_float32_policies(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and _is_float_policy(value) else _with_float32_policies(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(map(_with_float32_policies, config))
    return config


def _is_float_policy(dtype: Any) -> bool:
    return isinstance(dtype, dict) or (isinstance(dtype, str) and "float" in dtype)
