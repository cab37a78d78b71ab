"""The copy of a model that attacks search on."""

import keras
import pytest

from keras_robust import models
from keras_robust.models import JointClassifier, with_self_ensemble
from keras_robust.models.precision import bfloat16_copy


def joint():
    """A classifier whose logits see its latent and the image."""
    images = keras.Input((8, 8, 1))
    pixels = keras.layers.Flatten()(images)
    latent = keras.layers.Dense(5, activation="relu")(pixels)
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Concatenate()([latent, pixels]))
    return JointClassifier(keras.Model(images, [latent, logits]))


@pytest.mark.parametrize(
    "build",
    [
        lambda: models.build("small_cnn", filters=2, hidden=4),
        lambda: with_self_ensemble(models.build("small_cnn", filters=2, hidden=4), passes=2),
        joint,
    ],
    ids=["encoder and head", "self-ensemble", "joint"],
)
def test_the_layer_of_the_logits_stays_exact(build):
    layers = [layer for layer in bfloat16_copy(build())._flatten_layers() if layer.weights]
    exact = [layer.name for layer in layers if not isinstance(layer, keras.Model) and is_exact(layer)]
    assert exact == ["logits"]


def is_exact(layer):
    return layer.compute_dtype == "float32"
