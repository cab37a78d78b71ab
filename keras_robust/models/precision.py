"""Reduced precision is for training; evaluation, the zoo and export run in float32."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import InputError


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself if every layer computes in float32, otherwise a copy that does."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        copy = keras.saving.deserialize_keras_object(_with_float32_policies(config))
        copy.set_weights(model.get_weights())
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"The model has reduced-precision layers and its config does not rebuild it in float32: {error}"
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
