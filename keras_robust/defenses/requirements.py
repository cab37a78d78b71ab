"""What a defense asks of the classifier and of the batches that it is given."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import require
from keras_robust.models.graph import inner_layers, origins
from keras_robust.validation import check_images, check_labels

LayerType = type[keras.layers.Layer]


def check_head(defense: str, classifier: keras.Model, needed: LayerType) -> None:
    """Refuse, in the defense's name, a classifier whose head is not the one layer needed."""
    layers = _layers(classifier, "head")
    require(
        len(layers) == 1 and isinstance(layers[0], needed),
        f"{defense} needs a LatentClassifier whose head is one layer, {needed.__name__}: give models.build "
        f"the option head. Received: {classifier!r}.",
    )


def check_latent(defense: str, classifier: keras.Model, needed: LayerType) -> None:
    """Refuse, in the defense's name, a classifier whose head does not follow the layer needed."""
    has_head = getattr(classifier, "head", None) is not None
    require(
        has_head and isinstance(_latent_layer(classifier.encoder), needed),
        f"{defense} needs a LatentClassifier with a head, whose latent a layer {needed.__name__} gives: give "
        f"models.build the option variational and no head. Received: {classifier!r}.",
    )


def _latent_layer(encoder: keras.Model) -> Any:
    """What gives the latent, before it is only taken to float32."""
    made_by = origins(encoder.outputs[0])
    last = next(made_by)
    is_linear = getattr(last, "activation", None) is keras.activations.linear
    return next(made_by) if isinstance(last, keras.layers.Activation) and is_linear else last


def check_arrays(classifier: keras.Model, x: Any, y: Any) -> tuple[Any, Any]:
    """Images and labels that are all at hand, checked; a dataset is left to `check_kinds`, batch by batch."""
    if y is None:
        return x, y
    images = check_images(x, shape=classifier.input_shape[1:])
    return images, check_labels(y, classifier.output_shape[-1], len(images))


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
