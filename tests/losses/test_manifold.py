"""The bound of the Jensen-Shannon divergence: its values, and what a trained discriminator makes of it."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats
from scipy.special import expit

from keras_robust import losses
from keras_robust.errors import InputError
from keras_robust.models import build_discriminator

rng = np.random.default_rng(0)
CLEAN, ADVERSARIAL = rng.normal(scale=4, size=(2, 9)).astype("float32")
PAIRS = {"shifted": (stats.norm(0, 1), stats.norm(2, 1)), "spread": (stats.norm(0, 1), stats.norm(2, 3))}


def jsd(p, q):
    def part(x):
        densities = p.pdf(x), q.pdf(x)
        middle = sum(densities) / 2
        return sum(d * np.log(d / middle) for d in densities if d > 0) / 2

    return integrate.quad(part, -15, 20, limit=200)[0]


@pytest.mark.parametrize(("pair", "printed"), [("shifted", 0.337), ("spread", 0.243)])
def test_the_oracle_has_the_divergences_that_are_known(pair, printed):
    assert jsd(*PAIRS[pair]) == pytest.approx(printed, abs=5e-4)


@pytest.mark.parametrize("form", ["gan", "js"])
def test_values_equal_the_f_gan_table(form):
    clean, adversarial = CLEAN.astype("float64"), ADVERSARIAL.astype("float64")
    if form == "gan":
        expected = np.log(expit(clean)) + np.log(1 - expit(adversarial))
    else:
        g = [np.log(2) - np.log(1 + np.exp(-v)) for v in (clean, adversarial)]
        expected = g[0] + np.log(2 - np.exp(g[1]))
    np.testing.assert_allclose(losses.manifold_bound(CLEAN, ADVERSARIAL, form), expected, rtol=1e-5)
    loss = losses.ManifoldLoss(form)
    assert float(loss(CLEAN, ADVERSARIAL)) == pytest.approx(-expected.mean(), rel=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    np.testing.assert_array_equal(again.call(CLEAN, ADVERSARIAL), loss.call(CLEAN, ADVERSARIAL))


def test_certain_scores_stay_finite():
    scores = np.array([1e4, -1e4], "float32")
    np.testing.assert_allclose(losses.manifold_bound(scores, scores, "gan"), [-1e4, -1e4], rtol=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("form", ["gan", "js"])
def test_the_best_discriminator_attains_the_divergence(pair, form):
    """At the log-ratio of the densities the mean is the supremum."""
    p, q = PAIRS[pair]
    samples = [one.rvs(200_000, random_state=seed) for seed, one in enumerate((p, q))]
    scores = [(p.logpdf(x) - q.logpdf(x)).astype("float32") for x in samples]
    bound = float(np.mean(losses.manifold_bound(*scores, form)))
    assert bound == pytest.approx(2 * jsd(p, q) - (form == "gan") * np.log(4), abs=0.01)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("form", ["gan", "js"])
def test_a_trained_discriminator_recovers_the_divergence(pair, form):
    random.seed(0)
    p, q = PAIRS[pair]
    discriminator = build_discriminator("residual_mlp", (1,), depth=1, width=32)
    optimizer, loss = keras.optimizers.Adam(0.01), losses.ManifoldLoss(form)
    optimizer.build(discriminator.trainable_variables)

    def scores(samples):
        return [discriminator(x)["manifold"] for x in samples]

    @tf.function(autograph=False)
    def descend(clean, adversarial):
        with tf.GradientTape() as tape:
            value = loss(*scores([clean, adversarial]))
        variables = discriminator.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)

    def draw(seed, size):
        return [
            one.rvs((size, 1), random_state=2 * seed + n).astype("float32") for n, one in enumerate((p, q))
        ]

    for step in range(300):
        descend(*draw(step, 512))
    bound = -float(loss(*scores(draw(10_000, 50_000))))
    found = (bound + (form == "gan") * np.log(4)) / 2
    assert found == pytest.approx(jsd(p, q), rel=0.1)


def test_another_form_is_refused():
    with pytest.raises(InputError, match="Unknown form of the manifold loss: 'wgan'"):
        losses.ManifoldLoss("wgan")
