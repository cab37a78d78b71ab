"""What a defense asks of the classifier and of the batches that it is given."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_robust.defenses.dataset_values import checked
from keras_robust.errors import require
from keras_robust.models.graph import inner_layers, origins, passes_on
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
    return next(step for step in origins(encoder.outputs[0]) if not passes_on(step))


# A step takes one climb, on the classifier as it computes.
_NOT_IN_TRAINING = {"restarts": 1, "check_every": None, "search_dtype": "float32"}


def check_adversary(adversary: Any) -> None:
    """Refuse options of an attack that do nothing in a training step."""
    for option, usual in _NOT_IN_TRAINING.items():
        value = getattr(adversary, option, usual)
        require(
            value == usual,
            f"{option} does nothing in training; leave it at {usual!r}. Received: {option}={value!r}.",
        )


def checked_data(classifier: keras.Model, x: Any, y: Any = None) -> tuple[Any, Any]:
    """Images and labels that are all at hand, checked, or a dataset of both, checked as it is drawn."""
    if isinstance(x, tf.data.Dataset):
        return checked(x, classifier.output_shape[-1]), y
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
