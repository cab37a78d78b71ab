"""A classifier as an adaptive attack sees it: gradients pass some of its layers unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import keras

from keras_robust.errors import require
from keras_robust.layers import StraightThrough
from keras_robust.models.graph import inner_layers, is_graph, plain_graph, position_of, rewire
from keras_robust.models.latent import LatentClassifier

Place: TypeAlias = str | int | keras.layers.Layer


def straight_through(model: keras.Model, at: Place | Sequence[Place]) -> keras.Model:
    """A copy of `model` in which gradients pass some layers as if they did nothing.

    Attack the copy where a layer hides its gradient (it quantises, compresses or denoises the images), and
    score the images found on `model`. All layers and variables are shared; the outputs are the same.

    Args:
        model: built functional or Sequential classifier with one input and one output: images
            `(B, H, W, C)` float32 in [0, 1] to logits `(B, K)`. It may hold nested models.
        at: the layer, or the layers: each its name, its index in `model.layers` or the layer itself. A name
            and a layer are also found inside nested models. It has one input, and keeps its shape.

    Returns:
        The copy; of a `LatentClassifier` one that can hand out its latent too.

    Raises:
        InputError: no graph of layers, no such layer, or a layer that changes the shape.

    Source: backward pass differentiable approximation (BPDA) by the identity, Athalye et al. 2018,
    "Obfuscated gradients give a false sense of security", section 4.1.1.

    Example:
        >>> import keras
        >>> net = keras.Sequential([
        ...     keras.Input((8, 8, 1)),
        ...     keras.layers.Discretization([0.5], name="quantize"),
        ...     keras.layers.Flatten(),
        ...     keras.layers.Dense(10),
        ... ])
        >>> straight_through(net, at="quantize").output_shape
        (None, 10)
    """
    plain_graph(model)
    places = at if isinstance(at, list | tuple) else [at]
    chosen = [inner_layers(model)[position_of(model, place)] for place in places]
    for layer in chosen:
        require(
            _keeps_shape(layer),
            f"Gradients can pass a layer unchanged if it turns one tensor into another of the same shape. "
            f"Received: {layer.name!r}. Valid: "
            f"{', '.join(sorted(other.name for other in inner_layers(model) if _keeps_shape(other)))}.",
        )
    return _through(model, chosen)


def _keeps_shape(layer: keras.layers.Layer) -> bool:
    tensors = layer.input, layer.output
    return all(isinstance(one, keras.KerasTensor) for one in tensors) and tensors[0].shape == tensors[1].shape


def _through(model: keras.Model, chosen: list[keras.layers.Layer]) -> keras.Model:
    if isinstance(model, LatentClassifier):
        parts = {name: _through(part, chosen) for name, part in model.parts().items()}
        return type(model)(**parts, name=model.name)

    @cache
    def replacement(operation: keras.Operation) -> keras.Operation:
        if operation in chosen:
            return StraightThrough(operation, name=operation.name, dtype=operation.dtype_policy)
        if is_graph(operation) and not set(chosen).isdisjoint(inner_layers(operation)):
            return _through(operation, chosen)
        return operation

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        # A nested model is called with training=None and mask=None, which other layers need not know.
        given = {name: value for name, value in kwargs.items() if value is not None}
        return replacement(operation)(*args, **given)

    return rewire(keras.Model(_unpacked(model.inputs), _unpacked(model.outputs), name=model.name), call)


def _unpacked(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors
