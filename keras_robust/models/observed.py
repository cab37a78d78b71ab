"""A classifier that shows what it computes on the way to its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_robust.errors import require
from keras_robust.models.graph import flattened, inner_layers, last_operation, rewire
from keras_robust.registry import Registry


class Trace(NamedTuple):
    """One symbolic pass through a model, and through those nested in it.

    model: the model.
    images, logits: what goes in and comes out.
    inputs, outputs: of every operation, in order.
    """

    model: keras.Model
    images: keras.KerasTensor
    logits: keras.KerasTensor
    inputs: dict[Any, keras.KerasTensor]
    outputs: dict[Any, keras.KerasTensor]


# Each gives what is seen of a pass: a symbolic tensor, or a list of them.
spaces: Registry[Callable[[Trace], Any]] = Registry("space")


def observed(model: keras.Model, space: str) -> keras.Model:
    """The classifier as a model of what it shows and its logits: images to `[features, logits]`.

    Args:
        model: built classifier of layers, images to logits `(B, K)`. Layers and variables are shared.
        space: a name in `spaces`. "latent": the latent of a `LatentClassifier`, `(B, D)`.
            "hidden_and_latent": before it, the mean of each feature map stack of the encoder that follows
            a nonlinearity, one number each. "last_hidden": what the last layer with weights is given, `(B,
            D)`. "layers": the images and the output of every layer, a list of `(B, D)`.

    Raises:
        InputError: unknown space, a classifier without latent where one is needed, or without a graph of
            layers.

    >>> import keras_robust as kr
    >>> observed(kr.models.build("small_cnn"), "hidden_and_latent").output_shape
    [(None, 66), (None, 10)]
    """
    shows = spaces[space]
    trace = _trace(model)
    return keras.Model(trace.images, [shows(trace), trace.logits], name=model.name)


def before(model: keras.Model, kind: type[keras.layers.Layer]) -> keras.Model:
    """The part of `model` that gives the first layer of a class, which it has, what that layer works on."""
    trace = _trace(model)
    features = next(tensor for layer, tensor in trace.inputs.items() if isinstance(layer, kind))
    return keras.Model(trace.images, features, name=model.name)


def _trace(model: keras.Model) -> Trace:
    inputs: dict[Any, keras.KerasTensor] = {}
    outputs: dict[Any, keras.KerasTensor] = {}

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        inputs[operation] = next(iter((*args, *kwargs.values())))
        outputs[operation] = operation(*args, **kwargs)
        return outputs[operation]

    graph = rewire(flattened(model), call)
    return Trace(model, graph.inputs[0], graph.outputs[0], inputs, outputs)


@spaces.register("latent")
def latent(trace: Trace) -> keras.KerasTensor:
    """The latent, flat."""
    return _flat(trace.outputs[last_operation(_encoder(trace))])


@spaces.register("hidden_and_latent")
def hidden_and_latent(trace: Trace) -> keras.KerasTensor:
    """The mean of each stack of activated feature maps in the encoder, then the latent."""
    own = inner_layers(_encoder(trace))
    maps = [
        output
        for layer, output in trace.outputs.items()
        if layer in own and len(output.shape) == 4 and _activates(layer)
    ]
    means = [ops.mean(ops.cast(one, "float32"), axis=(1, 2, 3))[:, None] for one in maps]
    return ops.concatenate([*means, latent(trace)], axis=1)


@spaces.register("last_hidden")
def last_hidden(trace: Trace) -> keras.KerasTensor:
    """The features that the last layer with weights turns into logits, flat."""
    *_, last = [one for one in trace.outputs if isinstance(one, keras.layers.Layer) and one.weights]
    return _flat(trace.inputs[last])


@spaces.register("layers")
def every_layer(trace: Trace) -> list[keras.KerasTensor]:
    """The images, then the output of every layer, flat."""
    layers = [output for one, output in trace.outputs.items() if isinstance(one, keras.layers.Layer)]
    return [_flat(tensor) for tensor in (trace.images, *layers)]


def _encoder(trace: Trace) -> keras.Model:
    require(
        hasattr(trace.model, "encoder"),
        "A classifier with a latent is needed: make one with keras_robust.models.split. "
        f"Received: {trace.model!r}.",
    )
    return trace.model.encoder


def _flat(tensor: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Flatten(dtype="float32")(tensor)


def _activates(layer: keras.layers.Layer) -> bool:
    """Whether a layer is, or ends in, a nonlinearity."""
    own = getattr(layer, "activation", None)
    return isinstance(layer, (keras.layers.ReLU, keras.layers.LeakyReLU)) or (
        own is not None and own is not keras.activations.linear
    )
