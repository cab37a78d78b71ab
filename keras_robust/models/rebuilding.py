"""A model built again from a changed config, with its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_robust.errors import InputError

Change = Callable[[dict[str, Any]], dict[str, Any]]


def rebuilt(model: keras.Model, change: Change, purpose: str) -> keras.Model:
    """A copy of `model` from its config, in which `change` was made to every mapping.

    Raises:
        InputError: the config does not rebuild the model; it names the `purpose`.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        copy = keras.saving.deserialize_keras_object(_changed(config, change))
        copy.set_weights(model.get_weights())
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(f"The model's config does not rebuild it {purpose}: {error}") from error
    return copy


def _changed(config: Any, change: Change) -> Any:
    if isinstance(config, dict):
        return {key: _changed(value, change) for key, value in change(config).items()}
    if isinstance(config, list | tuple):
        return type(config)(_changed(item, change) for item in config)
    return config
