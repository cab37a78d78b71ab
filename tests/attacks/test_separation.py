"""The objective of ATLD's adversary."""

import random

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import models
from keras_robust.attacks import PGD
from keras_robust.attacks.separation import Separation
from keras_robust.attacks.view import Goal, View
from keras_robust.errors import InputError


@pytest.fixture
def discriminator():
    random.seed(0)  # its units can all be dead at the images
    return models.build_discriminator("residual_mlp", (3,), num_classes=3, depth=1, width=8)


def test_it_is_the_log_odds_of_adversarial(discriminator):
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    values = Separation(discriminator)(View(tf.constant(logits)), Goal(np.zeros(6, int)))
    clean = 1 / (1 + np.exp(-np.asarray(discriminator(logits)["manifold"])))
    np.testing.assert_allclose(values, np.log(1 - clean) - np.log(clean), rtol=1e-4, atol=1e-5)


def test_its_climb_ends_where_the_discriminator_is_more_certain(discriminator, linear):
    rng = np.random.default_rng(1)
    model = linear(rng.normal(size=(4, 3)).astype("float32"), (2, 2, 1))
    images = rng.uniform(0.3, 0.7, size=(20, 2, 2, 1)).astype("float32")
    attack = PGD(eps=0.1, steps=5, start=None, loss=Separation(discriminator), keep_best=True)
    before, after = (
        np.asarray(discriminator(model(x))["manifold"])
        for x in (images, attack(model, images, np.zeros(20, int)))
    )
    assert (after <= before + 1e-6).all() and (after < before - 1e-3).mean() > 0.5


def test_it_is_found_beside_the_classifier(discriminator, linear):
    model = linear(np.eye(3, dtype="float32"), (3,))
    with pytest.raises(InputError, match="No discriminator is kept beside"):
        Separation.beside(model)
    object.__setattr__(model, "companions", {"discriminator": discriminator})
    assert Separation.beside(model).discriminator is discriminator
    with pytest.raises(InputError, match="LatentClassifier"):
        PGD(eps=0.1, loss=Separation.beside(model, "latent"))(model, np.zeros((1, 3), "float32"), [0])
