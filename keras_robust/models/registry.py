"""Classifiers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_robust.errors import require, require_choice
from keras_robust.models.graph import inner_layers
from keras_robust.models.latent import LatentClassifier
from keras_robust.plain import plain
from keras_robust.registry import Registry

architectures: Registry[Callable[..., LatentClassifier]] = Registry("architecture")
# Builders of models that are kept beside a classifier, by kind.
companions: Registry[Callable[..., keras.Model]] = Registry("companion")
# Ways to use a classifier, each a function of it and its companions.
wrappers: Registry[Callable[..., keras.Model]] = Registry("wrapper")


def build(name: str, synchronized: bool = False, **options: Any) -> LatentClassifier:
    """The classifier of a registered architecture, which remembers how it was built.

    Args:
        name: a name in `architectures`.
        synchronized: whether batch normalisation takes its moments in training from the batch of all
            replicas of a distribution strategy, instead of each replica's own part.
        **options: the options of that builder. All take `input_shape`, `num_classes`, `head`, and
            `dtype`, the name of a Keras dtype policy that is handed to every layer (None: the global policy).

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
    require(isinstance(synchronized, bool), f"synchronized must be true or false; received {synchronized!r}.")
    builder = architectures[name]
    valid = inspect.signature(builder).parameters
    for option in options:
        require_choice(f"option of architecture {name!r}", option, valid)
    classifier = builder(**options)
    kept = {option: plain(value) for option, value in options.items() if option != "dtype"}
    if synchronized:
        kept["synchronized"] = True
        for layer in inner_layers(classifier):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
    classifier.remember({"name": name, **kept})
    return classifier


def wrapped_in(name: str, model: keras.Model, options: Mapping[str, Any]) -> keras.Model:
    """`model`, which a wrapper of that name gave for those options, as what it is told by.

    It shares its weights with the model it wraps, and with every other wrapper of it.
    """
    object.__setattr__(model, "wrapper", {"name": name, **plain(options)})  # past Keras' attribute tracking
    return model
