"""A Keras model as a graph of layers: found in it by name, and put together anew on the same layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_robust.errors import InputError, require, unknown_name


def plain_graph(model: keras.Model) -> keras.Model:
    """The plain functional model of `model`: same layers, neither compiled nor Sequential.

    Raises:
        InputError: there is no graph of layers, or more than one input or output.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not isinstance(model, keras.Model) or inputs is None or outputs is None:
        raise InputError(
            "A built functional or Sequential keras.Model is needed. A Sequential model is built by an Input "
            "as its first layer or by build(input_shape); a subclassed model has no graph of layers: give "
            f"LatentClassifier its encoder and head. Received {_describe(model)}."
        )
    require(
        len(inputs) == len(outputs) == 1,
        "A model with one input and one output is needed; "
        f"{model.name!r} has {len(inputs)} and {len(outputs)}.",
    )
    return keras.Model(inputs[0], outputs[0], name=model.name)


def _describe(model: Any) -> str:
    if isinstance(model, keras.Sequential):
        return f"the Sequential model {model.name!r}, which is not built"
    return f"an object of type {type(model).__name__}"


def is_graph(operation: keras.Operation) -> bool:
    """Whether an operation of a graph is itself a model with a graph."""
    return isinstance(operation, keras.Model) and getattr(operation, "inputs", None) is not None


def inner_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of `model` that are not inputs, then those of its nested models."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    return layers + [inner for nested in filter(is_graph, layers) for inner in inner_layers(nested)]


def position_of(model: keras.Model, at: str | int | keras.layers.Layer) -> int:
    """Where among the inner layers of `model` one is, given by name, index in `model.layers` or itself."""
    layers = inner_layers(model)
    names = [layer.name for layer in layers]
    if isinstance(at, int) and not isinstance(at, bool):
        count = len(model.layers)
        require(
            -count <= at < count,
            f"Layer index {at} is outside [{-count}, {count - 1}] of {model.name!r}, "
            f"which has {', '.join(layer.name for layer in model.layers)}.",
        )
        at = model.layers[at]
    for position, layer in enumerate(layers):
        if at is layer or at == names[position]:
            return position
    raise unknown_name("layer", getattr(at, "name", at), names)


def rewire(graph: keras.Model, call: Callable[..., Any]) -> keras.Model:
    """`graph` with `call(operation, *args, **kwargs)` in place of each call, on the same layers."""
    return keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)


def flattened(model: keras.Model) -> keras.Model:
    """The plain functional model of `model`, with the layers of nested models in place of these."""

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        return operation.call(*args, **kwargs) if is_graph(operation) else operation(*args, **kwargs)

    graph = plain_graph(model)
    while any(map(is_graph, graph.operations)):
        graph = rewire(graph, call)
    return graph


def origins(tensor: keras.KerasTensor) -> Iterator[keras.Operation]:
    """What gives a symbolic tensor, what gives the first input of that, and so on, into nested models."""
    while True:
        operation, call, output = tensor._keras_history
        if is_graph(operation):
            yield from origins(operation.outputs[output])
        else:
            yield operation
        inputs = operation._inbound_nodes[call].input_tensors
        if not inputs:
            return
        tensor = inputs[0]


def last_operation(model: keras.Model) -> Any:
    """What gives the output of `model`, the first if it has several."""
    return next(origins(model.outputs[0]))


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether the outputs of `model` are probabilities, as far as its graph or its layers tell."""
    if is_graph(model):
        last = next(step for step in origins(model.outputs[0]) if not passes_on(step))
    else:
        last = model
        while getattr(last, "layers", []):
            last = last.layers[-1]
    return is_softmax(last) or _activates_by_softmax(last)


def is_softmax(operation: keras.Operation) -> bool:
    """Whether an operation is a softmax and nothing else."""
    # By its name, because keras.ops.softmax leaves an operation whose class is not public.
    is_activation = isinstance(operation, keras.layers.Activation)
    return type(operation).__name__ == "Softmax" or (is_activation and _activates_by_softmax(operation))


def passes_on(operation: keras.Operation) -> bool:
    """Whether an operation changes at most the dtype of its input."""
    linear = getattr(operation, "activation", None) is keras.activations.linear
    return isinstance(operation, keras.layers.Identity) or (
        linear and isinstance(operation, keras.layers.Activation)
    )


def _activates_by_softmax(operation: keras.Operation) -> bool:
    return getattr(operation, "activation", None) is keras.activations.softmax
