"""What a defense asks of the classifier and of the batches that it is given."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import require
from keras_robust.models.graph import inner_layers

LayerType = type[keras.layers.Layer]


def check_built(classifier: Any) -> None:
    """Refuse what is no built model."""
    require(
        isinstance(classifier, keras.Model) and classifier.built,
        "The classifier must be a built keras.Model: give it a keras.Input, or call it once. "
        f"Received: {classifier!r}.",
    )


def check_layers(
    defense: str, classifier: keras.Model, head: LayerType | None, latent: LayerType | None
) -> None:
    """Refuse a classifier without a layer that the defense works with.

    Args:
        defense: its name, for the message.
        classifier: a built model.
        head: the one layer that its head must be; None: any head.
        latent: a layer that its encoder must have; None: any encoder.

    Raises:
        InputError: it is not as described.
    """
    require(
        head is None or (len(layers := _layers(classifier, "head")) == 1 and isinstance(layers[0], head)),
        f"{defense} needs a LatentClassifier whose head is one layer, {_name(head)}: give models.build the "
        f"option head. Received: {classifier!r}.",
    )
    require(
        latent is None or any(isinstance(layer, latent) for layer in _layers(classifier, "encoder")),
        f"{defense} needs a LatentClassifier with a layer {_name(latent)} in its encoder: give models.build "
        f"the option variational. Received: {classifier!r}.",
    )


def check_kinds(images: Any, labels: Any) -> None:
    """Refuse what a batch must not be; its values are not known while the step is traced."""
    is_float, is_int = keras.backend.is_float_dtype, keras.backend.is_int_dtype
    require(is_float(images.dtype), f"Images must be floating point in [0, 1]. Received: {images!r}.")
    require(
        labels is not None and is_int(labels.dtype) and len(labels.shape) == 1,
        f"Labels must be integers (B,). Received: {labels!r}.",
    )


def _layers(classifier: Any, part: str) -> list[keras.layers.Layer]:
    model = getattr(classifier, part, None)
    return [] if model is None else inner_layers(model)


def _name(layer: LayerType | None) -> str:
    return "" if layer is None else layer.__name__
