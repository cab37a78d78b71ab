"""Classifiers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from keras_robust.errors import unknown_name
from keras_robust.models.latent import LatentClassifier
from keras_robust.registry import Registry

architectures: Registry[Callable[..., LatentClassifier]] = Registry("architecture")


def build(name: str, **options: Any) -> LatentClassifier:
    """The classifier of a registered architecture, which remembers how it was built.

    Args:
        name: a name in `architectures`.
        **options: the options of that builder. All take `input_shape`, `num_classes` and `dtype`, the
            name of a Keras dtype policy that is handed to every layer (None: the global policy).

    Returns:
        The built classifier, with float32 latent and logits. Its `architecture` is
        `{"name": name, **options}` as plain data (tuples as lists), without `dtype`, which is not a
        property of the weights.

    Raises:
        InputError: unknown name or option, or a value that the architecture cannot take.

    Example:
        >>> build("cnn_4c3f", filters=8).architecture
        {'name': 'cnn_4c3f', 'filters': 8}
    """
    builder = architectures[name]
    valid = inspect.signature(builder).parameters
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of architecture {name!r}", option, valid)
    classifier = builder(**options)
    kept = {option: _plain(value) for option, value in options.items() if option != "dtype"}
    classifier.remember({"name": name, **kept})
    return classifier


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value
