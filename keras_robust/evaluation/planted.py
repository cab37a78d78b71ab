"""A test of the attack: does it find an adversarial example that was planted?"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np

from keras_robust.attacks import APGD, Attack, classify
from keras_robust.attacks.predictions import predict_logits
from keras_robust.models import LatentClassifier
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel

INNER, PLANTED = 0, 1  # the two classes of the readout

_INNER_POINTS = 49  # besides the image itself
_SHRUNK = 0.95  # they fill so much of the ball's radius
_CLOSE = 0.999  # how far the boundary is moved from the inner points towards the planted one
_STEPS = 40
_QUERIES = 200  # of the random search
_STRENGTH = 1e4  # inverse regularisation of the readout, which is to separate its points
_TINY = 1e-30


class Planted(NamedTuple):
    """What became of the planted examples.

    Attributes:
        found: share of the images on which the attack succeeded, in [0, 1].
        random: share on which random search did; the lower, the harder the test was.
        images: number of images in which an example could be planted.
    """

    found: float
    random: float
    images: int


def planted_success(
    model: keras.Model,
    images: np.ndarray,
    threat: ThreatModel,
    attack: Attack | None = None,
    examples: int = 32,
    seed: int = 0,
) -> Planted:
    """How often an attack finds an adversarial example that is known to exist: the binarization test.

    Around each image, points inside the ball and one on its edge, the planted one, are drawn. A linear
    readout of the classifier's features tells it from the others, with its boundary moved next to the
    planted point and logits that span as much as the classifier's own. This classifier of two classes
    has an adversarial example for certain: an attack that fails on it proves nothing about `model`.

    The features are the latent of a `LatentClassifier`, of another model the logits. An image whose
    planted point no readout tells from the inner ones is left out.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`.
        images: `(N, H, W, C)` float32 in [0, 1].
        threat: the ball in which an example is planted.
        attack: what is tested; None: Auto-PGD with 40 steps in `threat`.
        examples: how many of the images, from the first, are used.
        seed: of the points and of the attack.

    Source: Zimmermann, Brendel, Tramèr & Carlini 2022, "Increasing Confidence in Adversarial Robustness
    Evaluations". There an attack passes that finds 95 %.

    >>> import keras_robust as kr
    >>> images, _ = kr.data.load("digits", "test")
    >>> planted_success(kr.zoo.load("at_digits"), images, kr.ThreatModel("linf", 0.15), examples=4).found
    1.0
    """
    attack = attack or APGD(eps=threat.eps, norm=threat.norm, bounds=threat.bounds, steps=_STEPS)
    features = _features(model)
    binary = _readable(features)
    label = np.array([INNER], "int32")
    successes = []
    for number in range(min(examples, len(images))):
        image, noise = images[number : number + 1], Noise((seed, number))
        points = _points(image, threat, noise)
        span = np.ptp(predict_logits(model, points))
        weights, bias = readout(np.asarray(predict_logits(features, points), "float64"), span)
        binary.layers[-1].set_weights([weights, bias])
        if (classify(binary, points) == [INNER] * (len(points) - 1) + [PLANTED]).all():
            attacked = attack(binary, image, label, seed=seed + number)
            drawn = np.asarray(threat.random_edge(_copies(image, _QUERIES), noise))
            successes.append([(classify(binary, tried) == PLANTED).any() for tried in (attacked, drawn)])
    found, random = np.mean(successes, axis=0) if successes else (0.0, 0.0)
    return Planted(float(found), float(random), len(successes))


def readout(features: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Linear layer of two logits by which the last of the points `(N, D)` is just over the boundary.

    Args:
        features: of the points, the planted one last.
        span: difference between the largest and the smallest logit on the points.

    Returns:
        Kernel `(D, 2)` and bias `(2,)`.
    """
    from sklearn.linear_model import LogisticRegression

    scale = features.std(axis=0) + 1e-6 * features.std() + _TINY
    classes = np.arange(len(features)) == len(features) - 1
    regression = LogisticRegression(C=_STRENGTH, class_weight="balanced", solver="liblinear")
    weights = regression.fit((features - features.mean(axis=0)) / scale, classes).coef_[0] / scale
    scores = features @ weights
    nearest = scores[:-1].max()
    boundary = nearest + _CLOSE * (scores[-1] - nearest)
    unit = span / (2 * np.abs(scores - boundary).max() + _TINY)  # the logits are plus and minus the score
    return np.stack([-weights, weights], axis=1) * unit, np.array([boundary, -boundary]) * unit


def _features(model: keras.Model) -> keras.Model:
    """Images to the features `(B, D)` that are read out: the logits if there is no latent of known size."""
    images = keras.Input(model.input_shape[1:])
    has_latent = isinstance(model, LatentClassifier) and None not in model.encoder.output_shape[1:]
    encoder = model.encoder if has_latent else model
    return keras.Model(images, keras.layers.Flatten(dtype="float32")(encoder(images)))


def _readable(features: keras.Model) -> keras.Model:
    """Features and the layer that reads them out, in float32 whatever the global policy is."""
    images = keras.Input(features.input_shape[1:])
    return keras.Sequential([images, features, keras.layers.Dense(2, dtype="float32")])


def _points(image: np.ndarray, threat: ThreatModel, noise: Noise) -> np.ndarray:
    """Inner points around one image `(1, H, W, C)`, the image itself, and the planted point."""
    inside = ThreatModel(threat.norm, _SHRUNK * threat.eps, threat.bounds)
    inner = inside.random_start(_copies(image, _INNER_POINTS), noise)
    return np.concatenate([inner, image, threat.random_edge(image, noise)])


def _copies(image: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(image, count, axis=0)
