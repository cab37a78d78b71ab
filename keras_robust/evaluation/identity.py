"""What tells one model, or one set of examples, from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_robust.models.precision import in_float32

_NAMED = ("name", "keras_history", "input_layers", "output_layers")  # where a config tells names of layers


def identity(model: keras.Model) -> dict[str, str]:
    """What tells a model from others: its weights, its layers and their options, and a variant's wrapper."""
    wrapper = getattr(model, "wrapper", None)
    told = {"wrapper": json.dumps(wrapper, sort_keys=True)} if wrapper else {}
    exact = in_float32(model)
    return {"weights": digest(*exact.weights), "layers": _layers(exact), **told}


def _layers(model: keras.Model) -> str:
    """What tells the layers of models apart; nothing of a model that cannot be described.

    Names count for their order alone: those that Keras gives carry numbers of the process.
    """
    try:
        config = model.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return ""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(_names(model)))}

    def numbered(value: Any, named: bool = False) -> Any:
        if isinstance(value, dict):
            return {key: numbered(part, key in _NAMED) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [numbered(part, named) for part in value]
        return numbers.get(value, value) if named and isinstance(value, str) else value

    text = json.dumps(numbered(config), sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode()).hexdigest()


def _names(operation: keras.Operation) -> Iterator[str]:
    """The names of an operation and of all that it is made of, in a fixed order."""
    yield operation.name
    for part in (*getattr(operation, "operations", ()), *getattr(operation, "_layers", ())):
        yield from _names(part)


def digest(*values: Any) -> str:
    """What tells the weights of two models, or two sets of examples, apart."""
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()
