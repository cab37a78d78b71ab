"""Cut any Keras classifier at a layer: what comes before is the encoder, what comes after is the head."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import InputError, require
from keras_robust.models.graph import (
    ends_in_softmax,
    inner_layers,
    is_graph,
    is_softmax,
    passes_on,
    plain_graph,
    position_of,
    rewire,
)
from keras_robust.models.latent import JointClassifier, LatentClassifier


def split(
    model: keras.Model, at: str | int | keras.layers.Layer, strip_softmax: bool = False
) -> LatentClassifier:
    """A `LatentClassifier` on the layers of `model`, whose latent is the output of one of them.

    Nothing is copied: both models share their layers and variables, so training one trains the other.

    Args:
        model: built functional or Sequential classifier with one input and one output: images
            `(B, H, W, C)` float32 in [0, 1] to logits `(B, K)`. It may hold nested models.
        at: the layer whose output is the latent: its name, its index in `model.layers` (negative ones
            count from the end) or the layer itself. A name and a layer are also found inside nested
            models, outermost first, so that a `LatentClassifier` can be cut again elsewhere.
        strip_softmax: leave out a softmax at the end of `model`: a `Softmax` layer, an `Activation`, or
            the activation of a last `Dense`.

    Returns:
        The classifier. It is a `JointClassifier`, whose `head` is None, if something other than the
        latent reaches the logits from before the cut (a skip connection, or a layer with weights that
        is used on both sides); `latent_and_logits` works all the same.

    Raises:
        InputError: no graph of layers, more than one input or output, no such layer, a layer that is
            used more than once, or a softmax at the end that is not to be, or cannot be, left out.

    Example:
        >>> import keras
        >>> net = keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
        >>> classifier = split(net, at="out_relu", strip_softmax=True)
        >>> classifier.encoder.output_shape, classifier.head.output_shape
        ((None, 1, 1, 1280), (None, 10))
    """
    graph = plain_graph(model)
    position = position_of(model, at)
    if ends_in_softmax(graph):
        require(
            strip_softmax,
            f"Model {model.name!r} ends in a softmax (layer {graph.operations[-1].name!r}), but classifiers "
            "return logits. Pass strip_softmax=True to leave it out.",
        )
        graph = _without_softmax(graph)
    layer = inner_layers(graph)[position]
    while layer not in graph.layers:
        graph = _inline(graph, layer)
    images, latent, logits = _trace(graph, layer)
    return _assemble(images, latent, logits, name=model.name)


@keras.saving.register_keras_serializable("keras_robust")
class DenseLogits(keras.layers.Wrapper):
    """What a `Dense` layer computes before its activation, on the same variables.

    Args:
        layer: the `keras.layers.Dense`, whose activation is not applied.
    """

    def call(self, inputs: Any) -> Any:
        logits = keras.ops.matmul(inputs, self.layer.kernel)
        return keras.ops.add(logits, self.layer.bias) if self.layer.use_bias else logits

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.layer.compute_output_shape(input_shape)


def _inline(graph: keras.Model, layer: keras.layers.Layer) -> keras.Model:
    """`graph` with the layers of the nested model that holds `layer` in place of that model."""

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        holds = is_graph(operation) and layer in inner_layers(operation)
        return operation.call(*args, **kwargs) if holds else operation(*args, **kwargs)

    return rewire(graph, call)


def _without_softmax(graph: keras.Model) -> keras.Model:
    """`graph` up to its logits; all other layers keep their place."""
    graph = plain_graph(graph)
    last = next(step for step in reversed(graph.operations) if not passes_on(step))
    replacement = _logits_in_place_of(last)

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if operation is not last:
            return operation(*args, **kwargs)
        return replacement(*args, **kwargs) if is_graph(last) else replacement(args[0])

    return rewire(graph, call)


def _logits_in_place_of(operation: keras.Operation) -> keras.Operation:
    if is_graph(operation):
        return _without_softmax(operation)
    if is_softmax(operation):
        return keras.layers.Identity(name=operation.name, dtype=_precision(operation))
    if isinstance(operation, keras.layers.Dense):
        return DenseLogits(operation, name=operation.name, dtype=operation.dtype_policy)
    raise InputError(
        f"The softmax inside the last layer {operation.name!r} ({type(operation).__name__}) cannot be left "
        "out. Valid: a Softmax or Activation layer, or a Dense layer with activation='softmax'."
    )


def _precision(softmax: keras.Operation) -> str:
    """The dtype policy of a softmax; a function that is no layer keeps what it is given."""
    return softmax.dtype_policy.name if isinstance(softmax, keras.layers.Layer) else "float32"


def _trace(
    graph: keras.Model, layer: keras.layers.Layer
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """The symbolic images, latent and logits."""
    latents = []

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        outputs = operation(*args, **kwargs)
        if operation is layer:
            latents.append(outputs)
        return outputs

    graph = rewire(graph, call)
    require(
        len(latents) == 1,
        f"Layer {layer.name!r} is used {len(latents)} times; the latent is one tensor. Choose another layer.",
    )
    require(
        isinstance(latents[0], keras.KerasTensor),
        f"Layer {layer.name!r} has several outputs; the latent is one tensor. Choose another layer.",
    )
    return graph.inputs[0], latents[0], graph.outputs[0]


def _assemble(
    images: keras.KerasTensor, latent: keras.KerasTensor, logits: keras.KerasTensor, name: str
) -> LatentClassifier:
    if latent is logits:
        logits = keras.layers.Identity(dtype=latent.dtype)(latent)
    encoder = keras.Model(images, latent, name="encoder")
    head = _head(latent, logits)
    if head is None or _share_weights(encoder, head):
        return JointClassifier(keras.Model(images, [latent, logits], name="joint"), name=name)
    return LatentClassifier(encoder, head, name=name)


def _head(latent: keras.KerasTensor, logits: keras.KerasTensor) -> keras.Model | None:
    try:
        return keras.Model(latent, logits, name="head")
    except ValueError:  # Keras: the logits are not connected to the latent alone
        return None


def _share_weights(encoder: keras.Model, head: keras.Model) -> bool:
    return not {id(weight) for weight in encoder.weights}.isdisjoint(id(weight) for weight in head.weights)
