"""Points in the plane in the place of images: every defense trains on the two moons."""

import random

import keras
import numpy as np
import pytest
from defense_building import every

from keras_robust import data, models
from keras_robust.attacks import PGD
from keras_robust.defenses import defenses
from keras_robust.errors import InputError

ADVERSARIES = {
    "feature_scattering": PGD(eps=0.02, steps=1, step_size=0.02, loss="transport"),
    "bilateral": PGD(eps=0.02, steps=1, step_size=0.02, loss="most_confusing"),
}
FREE = [name for name, cls in defenses.items() if cls.needs_head is None and cls.needs_latent is None]
# Half of the mass off the true class says nothing where there are two.
OPTIONS = {
    "atld": {"smoothing": 0.1},
    "bilateral": {"label_mass": 0.1},
    "feature_scattering": {"smoothing": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_labels_that_say_nothing_are_refused(name):
    with pytest.raises(InputError, match=r"must be less than 1 - 1/2"):
        defenses[name](models.build("mlp"), PGD(eps=0.02))


@pytest.mark.parametrize("name", [name if name in ADVERSARIES else every(name) for name in FREE])
def test_two_moons_are_learnt(name):
    random.seed(0)
    points, labels = data.load("two_moons", "train")
    adversary = ADVERSARIES.get(name, PGD(eps=0.02, steps=2))
    defense = defenses[name](models.build("mlp", hidden=(32, 32)), adversary, **OPTIONS.get(name, {}))
    defense.compile(keras.optimizers.Adam(0.01))
    defense.fit(points, labels, batch_size=50, epochs=6, shuffle=False, verbose=0)
    points, labels = data.load("two_moons", "test")
    assert (np.asarray(defense.classifier(points)).argmax(axis=1) == labels).mean() > 0.8
