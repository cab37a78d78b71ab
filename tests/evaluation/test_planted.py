"""The binarization test: its readout, what it plants, and which attacks pass."""

import random
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
from keras import layers

from keras_robust import data, models, zoo
from keras_robust.attacks import PGD, Attack, Square, classify
from keras_robust.attacks.compiling import trace_count
from keras_robust.evaluation.masked import quantized, saturated
from keras_robust.evaluation.planted import INNER, planted_success, readout
from keras_robust.threat import ThreatModel

THREAT = ThreatModel("linf", 0.15)


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "test")[0]


@pytest.fixture(scope="module")
def honest():
    return zoo.load("at_digits")


@pytest.mark.parametrize("span", [3.0, 2e4])
def test_the_readout_puts_the_last_point_just_over_the_boundary(span):
    features = np.random.default_rng(0).normal(5, [0.01, 1, 100] * 20, (21, 60))
    kernel, bias = readout(features, span)
    logits = features @ kernel + bias
    scores = logits[:, 1] - logits[:, 0]
    assert (scores[:-1] < 0).all() and scores[-1] > 0
    np.testing.assert_allclose(scores[-1] / -scores[:-1].max(), 0.001 / 0.999, rtol=1e-4)
    np.testing.assert_allclose(np.ptp(logits), span)


def test_an_attack_with_gradients_passes_and_one_that_does_nothing_fails(honest, images):
    assert planted_success(honest, images, THREAT, PGD(eps=0.15), examples=12).found == 1.0
    nothing = planted_success(honest, images, THREAT, PGD(eps=0.15, steps=1, step_size=1e-9, start=None), 12)
    assert nothing.found == 0 and nothing.images == 12


@pytest.mark.parametrize("hide", [saturated, quantized])
def test_hidden_gradients_fail_where_a_search_finds(hide, honest, images):
    masked = hide(honest)
    stuck = planted_success(masked, images, THREAT, PGD(eps=0.15), examples=8)
    searched = planted_success(masked, images, THREAT, Square(eps=0.15, queries=250), examples=8)
    assert stuck.found < 0.3 and searched.found > 0.8
    assert (stuck.random, stuck.images) == (searched.random, searched.images)


def test_a_latent_of_free_size_is_passed_over_for_the_logits():
    random.seed(0)
    free = [keras.Input((None, None, 1)), layers.Conv2D(40, 3, name="map"), layers.GlobalAveragePooling2D()]
    model = models.split(keras.Sequential([*free, layers.Dense(30)]), at="map")
    images = np.random.default_rng(0).random((4, 8, 8, 1), "float32")
    assert planted_success(model, images, THREAT, PGD(eps=0.15), examples=4).images > 0


@dataclass(frozen=True, kw_only=True)
class Recorder(Attack):
    """Remembers what it was given."""

    given: list = field(default_factory=list)

    def __call__(self, model, images, labels, targets=None, *, seed=0, batch_size=128):
        found = PGD(eps=self.eps)(model, images, labels, seed=seed)
        self.given.append((model, images, labels, classify(model, images), found))
        return found


def test_the_attack_gets_one_model_of_two_classes_that_is_traced_once(honest, images):
    recorder = Recorder(eps=0.15)
    assert planted_success(honest, images, THREAT, recorder, examples=4).images == 4
    attacked, given, labels, classes, _ = zip(*recorder.given, strict=True)
    assert len({id(model) for model in attacked}) == 1 and attacked[0].output_shape == (None, 2)
    assert trace_count(attacked[0]) == 2, "the attack and the predictions"
    np.testing.assert_array_equal(np.concatenate(given), images[:4])
    assert set(np.concatenate(labels)) == set(np.concatenate(classes)) == {INNER}


def test_it_repeats_with_its_seed_and_works_in_l2(honest, images):
    threat = ThreatModel("l2", 1.0)

    def run(seed):
        recorder = Recorder(eps=0.15)
        return planted_success(honest, images, threat, recorder, 2, seed), recorder.given[-1][-1]

    (one, found), (same, again), (_, other) = run(1), run(1), run(2)
    assert one == same and one.images == 2
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - other).max() > 0
    assert planted_success(honest, images, threat, examples=6).found == 1.0


def test_logits_are_the_features_of_a_model_without_a_latent(digits_classifier, images):
    result = planted_success(digits_classifier, images, THREAT, examples=8)
    assert result.images > 0 and result.found == 1.0


def test_images_in_which_nothing_can_be_planted_are_left_out(images):
    constant = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3, kernel_initializer="zeros")]
    )
    assert planted_success(constant, images, THREAT, examples=3) == (0, 0, 0)
    assert planted_success(models.build("small_cnn"), images[:0], THREAT) == (0, 0, 0)


def test_the_global_policy_does_not_blur_the_readout(honest, images):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = planted_success(honest, images, THREAT, PGD(eps=0.15), examples=12)
    finally:
        keras.config.set_dtype_policy(before)
    assert found == planted_success(honest, images, THREAT, PGD(eps=0.15), examples=12)
