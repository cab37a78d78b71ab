"""Losses refuse options that their formulas do not know, as functions and as objects."""

import numpy as np
import pytest

from keras_robust import losses
from keras_robust.errors import InputError

LABELS = np.array([0, 1])
FEATURES = np.eye(2, dtype="float32")

BAD = {
    "form": lambda: losses.manifold_bound(LABELS, LABELS, form="wgan"),
    "alpha": lambda: losses.global_compactness(LABELS, FEATURES, alpha=0),
    "smoothness's alpha": lambda: losses.global_smoothness(LABELS, FEATURES, FEATURES, alpha=2),
    "norm": lambda: losses.local_compactness(FEATURES, FEATURES, norm=[1]),
    "smoothing": lambda: losses.smoothed_labels(LABELS, 3, smoothing=2.0),
    "classes": lambda: losses.SoftCrossEntropy()(LABELS, FEATURES[:, :1]),
    "mass": lambda: losses.adversarial_labels(LABELS, FEATURES, mass=3),
    "gamma": lambda: losses.adversarial_labels(LABELS, FEATURES, gamma=-1),
    "regularization": lambda: losses.transport_cost(FEATURES, FEATURES, regularization=0),
    "margin": lambda: losses.triplet(LABELS, FEATURES, FEATURES, margin=-1),
    "confidence": lambda: losses.Margin("a"),
    "negative confidence": lambda: losses.Margin(-1),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_option_is_told(what):
    with pytest.raises(InputError, match=what.split()[-1]):
        BAD[what]()
