"""Batch normalisation over all replicas is an option of every architecture."""

import keras
import pytest

from keras_robust import models, recipes, zoo
from keras_robust.errors import InputError
from keras_robust.models.graph import inner_layers

OPTIONS = {"name": "vgg", "width_multiplier": 0.03, "input_shape": (8, 8, 1)}


def normalizations(classifier):
    return [layer for layer in inner_layers(classifier) if isinstance(layer, keras.layers.BatchNormalization)]


def test_it_is_asked_for_and_remembered():
    plain, asked = models.build(**OPTIONS), models.build(**OPTIONS, synchronized=True)
    assert len(normalizations(asked)) == len(normalizations(plain)) > 0
    assert all(layer.synchronized for layer in normalizations(asked))
    assert not any(layer.synchronized for layer in normalizations(plain))
    assert "synchronized" not in plain.architecture
    assert all(layer.synchronized for layer in normalizations(models.build(**asked.architecture)))


def test_it_is_kept_in_the_zoo(tmp_path):
    kept = zoo.save(models.build(**OPTIONS, synchronized=True), "mine", directory=tmp_path)
    opened, card = zoo.open_model(kept)
    assert card.architecture["synchronized"] is True
    assert all(layer.synchronized for layer in normalizations(opened))


def test_a_recipe_may_ask_for_it():
    overrides = ["architecture={name: vgg, width_multiplier: 0.03}", "architecture.synchronized=true"]
    recipe = recipes.load("at_digits", profile="smoke", overrides=overrides)
    assert all(layer.synchronized for layer in normalizations(recipe.classifier()))


def test_it_is_true_or_false():
    with pytest.raises(InputError, match="synchronized must be true or false"):
        models.build(**OPTIONS, synchronized="yes")
