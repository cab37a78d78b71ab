"""What a classifier shows on the way to its logits, and the ensemble of its noisy passes."""

import random

import keras
import numpy as np
import pytest
from scipy import special

from keras_robust import models
from keras_robust.attacks import PGD
from keras_robust.errors import InputError
from keras_robust.layers import CodeMean
from keras_robust.models.observed import before, observed, spaces

rng = np.random.default_rng(0)
NAMES = {"er_cnn": {"filters": 4}, "er_vgg": {"width_multiplier": 0.0625, "hidden": 8}, "small_cnn": {}}
every_network = pytest.mark.parametrize(("name", "options"), NAMES.items())


def batch(model):
    return rng.uniform(size=(3, *model.input_shape[1:])).astype("float32")


@every_network
@pytest.mark.parametrize("space", spaces)
def test_logits_are_those_of_the_classifier(name, options, space):
    model = models.build(name, **options)
    images = batch(model)
    np.testing.assert_allclose(observed(model, space)(images)[1], model(images), rtol=1e-4, atol=1e-5)


@every_network
def test_the_latent_is_shown_behind_one_mean_for_each_activated_map(name, options):
    model = models.build(name, **options)
    images = batch(model)
    latent, _ = model.latent_and_logits(images)
    shown = np.asarray(observed(model, "hidden_and_latent")(images)[0])
    np.testing.assert_allclose(observed(model, "latent")(images)[0], latent, rtol=1e-4, atol=1e-5)
    maps = {"er_cnn": 4, "er_vgg": 16, "small_cnn": 2}[name]
    assert shown.shape[1] == maps + latent.shape[1]
    np.testing.assert_allclose(shown[:, maps:], latent, rtol=1e-4, atol=1e-5)


def test_a_mean_is_that_of_the_map():
    model = models.build("small_cnn")
    images = batch(model)
    conv = model.encoder.layers[1]
    expected = np.asarray(conv(images)).mean(axis=(1, 2, 3))
    shown = np.asarray(observed(model, "hidden_and_latent")(images)[0])
    np.testing.assert_allclose(shown[:, 0], expected, rtol=1e-4)


def test_the_last_hidden_features_make_the_logits():
    model = models.build("er_cnn", filters=4)
    images = batch(model)
    features, logits = observed(model, "last_hidden")(images)
    assert features.shape == (3, 256)
    np.testing.assert_allclose(model.head.layers[-1](features), logits, rtol=1e-4, atol=1e-5)


def test_all_layers_are_shown_flat_from_the_images_to_the_logits():
    model = models.build("small_cnn")
    images = batch(model)
    shown, logits = observed(model, "layers")(images)
    np.testing.assert_array_equal(shown[0], images.reshape(3, -1))
    np.testing.assert_array_equal(shown[-1], logits)
    assert all(len(one.shape) == 2 for one in shown)


def test_layers_that_are_called_by_keywords_are_shown_too():
    images = keras.Input((4, 6, 3))
    seen = keras.layers.Reshape((24, 3))(keras.layers.Conv2D(3, 3, padding="same")(images))
    seen = keras.layers.MultiHeadAttention(2, 2)(query=seen, value=seen)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(seen)))
    points = np.random.default_rng(0).random((2, 4, 6, 3), "float32")
    shown, logits = observed(model, "layers")(points)
    np.testing.assert_allclose(logits, model(points), rtol=1e-5, atol=1e-6)
    assert [one.shape[1] for one in shown] == [72, 72, 72, 72, 72, 2]
    quiet = models.with_self_ensemble(model, first=0.0, inner=0.0, passes=2)
    expected = keras.ops.log_softmax(model(points))
    np.testing.assert_allclose(quiet(points), expected, rtol=1e-4, atol=1e-5)


def test_what_a_layer_is_given():
    model = models.build("er_cnn", filters=4, variational=True)
    images = batch(model)
    moments = before(model.encoder, CodeMean)(images)
    assert moments.shape == (3, 8)
    np.testing.assert_allclose(moments[:, :4], model.encoder(images), rtol=1e-4, atol=1e-6)


def test_a_latent_is_needed(linear):
    model = linear(np.ones((4, 2), "float32"), (2, 2, 1))
    with pytest.raises(InputError, match="A classifier with a latent is needed"):
        observed(model, "latent")
    with pytest.raises(InputError, match=r"Unknown space: 'latents'. Did you mean 'latent'"):
        observed(model, "latents")


# The ensemble


def test_without_noise_the_ensemble_is_the_classifier():
    model = models.build("small_cnn")
    images = batch(model)
    ensemble = models.with_self_ensemble(model, first=0.0, inner=0.0, passes=3)
    np.testing.assert_allclose(
        special.softmax(ensemble(images), axis=1), special.softmax(model(images), axis=1), atol=1e-5
    )


def test_it_averages_probabilities_over_its_passes():
    random.seed(0)
    model = models.build("small_cnn")
    images = np.repeat(batch(model)[:1], 200, axis=0)
    few, many = (
        special.softmax(models.with_self_ensemble(model, first=0.5, inner=0.5, passes=passes)(images), axis=1)
        for passes in (1, 16)
    )
    assert few.std(axis=0).max() > 0.01, "a pass is random"
    spreads = [np.linalg.norm(one.std(axis=0)) for one in (few, many)]
    assert spreads[0] / spreads[1] == pytest.approx(4, rel=0.3)
    np.testing.assert_allclose(few.mean(axis=0), many.mean(axis=0), atol=0.06)


def test_noise_goes_before_every_convolution():
    model = models.build("er_cnn", filters=4)
    layers = models.self_ensemble.with_noise(model, 0.2, 0.1)._flatten_layers()
    noise = [layer.stddev for layer in layers if type(layer).__name__ == "RandomNoise"]
    assert sorted(noise) == [0.1, 0.1, 0.1, 0.2]


def test_an_ensemble_is_saved_exported_and_attacked(tmp_path):
    import tensorflow as tf

    model = models.build("small_cnn")
    images = batch(model)
    ensemble = models.with_self_ensemble(model, first=0.0, inner=0.0, passes=2)
    ensemble.save(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "ensemble.keras")(images), ensemble(images), atol=1e-5
    )
    ensemble.export(tmp_path / "served", verbose=False)
    module = tf.saved_model.load(tmp_path / "served")
    served = module.serve(images)
    np.testing.assert_allclose(served, ensemble(images), atol=1e-5)
    assert PGD(eps=0.1, steps=2)(ensemble, images, np.zeros(3, "int32")).shape == images.shape


@pytest.mark.parametrize(
    ("options", "words"),
    [({"passes": 0}, "passes must be an integer >= 1"), ({"first": -1}, "first must be")],
)
def test_bad_options_of_the_ensemble(options, words):
    with pytest.raises(InputError, match=words):
        models.with_self_ensemble(models.build("small_cnn"), **options)
