"""Wasserstein losses and the divergence from N(0, I) against other truths; the critic's estimate."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from keras_robust import losses
from keras_robust.layers import WeightClip
from keras_robust.models import build_critic
from keras_robust.priors import sample

LIMIT = 0.1
rng = np.random.default_rng(0)
ONE, OTHER = rng.normal(size=(2, 7)).astype("float32")
MEAN, LOG_VARIANCE = rng.normal(size=(2, 7, 3)).astype("float32")


def test_the_critic_descends_and_the_encoder_ascends_the_same_scores():
    np.testing.assert_allclose(losses.wasserstein_critic(ONE, OTHER), OTHER - ONE)
    np.testing.assert_allclose(losses.wasserstein_generator(OTHER), -OTHER)


def test_the_divergence_equals_a_quadrature():
    def kl(mean, log_variance):
        one, other = stats.norm(mean, np.exp(log_variance / 2)), stats.norm()
        return integrate.quad(lambda x: one.pdf(x) * (one.logpdf(x) - other.logpdf(x)), -30, 30)[0]

    expected = np.vectorize(kl)(MEAN, LOG_VARIANCE).sum(axis=1)
    np.testing.assert_allclose(losses.normal_divergence(MEAN, LOG_VARIANCE), expected, rtol=1e-4)
    zeros = np.zeros((2, 3), "float32")
    np.testing.assert_allclose(losses.normal_divergence(zeros, zeros), 0)


OBJECTS = {
    "critic": (losses.WassersteinCritic(), ONE, OTHER, OTHER - ONE),
    "generator": (losses.WassersteinGenerator(), ONE, OTHER, -OTHER),
    "divergence": (
        losses.NormalDivergence(),
        MEAN,
        LOG_VARIANCE,
        0.5 * (MEAN**2 + np.exp(LOG_VARIANCE) - 1 - LOG_VARIANCE).sum(axis=1),
    ),
}


@pytest.mark.parametrize(("loss", "y_true", "y_pred", "values"), OBJECTS.values(), ids=OBJECTS)
def test_an_object_is_the_weighted_mean_and_round_trips(loss, y_true, y_pred, values):
    weights = np.linspace(0, 2, 7, dtype="float32")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    for one in (loss, again):
        np.testing.assert_allclose(one(y_true, y_pred), values.mean(), rtol=1e-4)
        np.testing.assert_allclose(
            one(y_true, y_pred, sample_weight=weights), (weights * values).mean(), rtol=1e-4
        )


def estimate(distance, steps=60, batch=256):
    """The critic's estimate of the distance of two normal distributions in the plane."""
    random.seed(0)
    critic, clip = build_critic(2, depth=1, width=32), WeightClip(LIMIT)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(critic.trainable_variables)

    @tf.function
    def step(prior, code):
        with tf.GradientTape() as tape:
            loss = losses.WassersteinCritic()(critic(prior), critic(code))
        gradients = tape.gradient(loss, critic.trainable_variables)
        optimizer.apply(gradients, critic.trainable_variables)
        for variable in critic.trainable_variables:
            variable.assign(clip(variable))
        return loss

    for seed in range(steps):
        prior = sample("normal", (batch, 2), seed=2 * seed)
        code = sample("normal", (batch, 2), seed=2 * seed + 1) + np.float32([distance, 0])
        loss = step(tf.constant(prior), tf.constant(code))
        assert max(np.abs(weights).max() for weights in critic.get_weights()) <= np.float32(LIMIT)
    return -float(loss)


def test_the_estimate_grows_linearly_with_the_distance_of_two_gaussians():
    distances = np.array([1.0, 3.0, 5.0])
    estimates = np.array([estimate(distance) for distance in distances])
    assert stats.pearsonr(distances, estimates).statistic ** 2 >= 0.98
    assert (np.diff(estimates) > 0).all()


@pytest.mark.parametrize(("options", "above"), [({}, True), ({"logsigmoid": True}, False)])
def test_a_critic_has_five_affine_layers_and_one_score_a_code(options, above):
    critic = build_critic(4, width=16, **options)
    assert [layer.units for layer in critic.layers if isinstance(layer, keras.layers.Dense)] == [16] * 4 + [1]
    scores = np.asarray(critic(100 * rng.normal(size=(200, 4)).astype("float32")))
    assert scores.shape == (200,) and bool((scores > 0).any()) == above
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(critic))
    assert again.output_shape == (None,)
