"""Minimum-norm attacks against closed forms on linear models, and DDN against its rule in NumPy."""

import functools

import keras
import numpy as np
import pytest

from keras_robust.attacks import CWL2, DDN, FAB, FABTargeted, classify
from keras_robust.attacks.cw_l2 import _start, descend
from keras_robust.attacks.minimal import none_yet
from keras_robust.errors import InputError
from keras_robust.losses import margin
from keras_robust.threat import ThreatModel

ATTACKS = [
    DDN(steps=60, init_eps=0.2),
    CWL2(steps=100, binary_search_steps=6, initial_const=1.0, learning_rate=0.02),
    FAB(norm="l2", steps=15),
    FAB(norm="linf", steps=15),
    FABTargeted(norm="l2", steps=15),
    FABTargeted(norm="linf", steps=15),
]
every_attack = pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda attack: f"{type(attack).__name__}-{attack.norm}"
)
SHAPE, COUNT = (2, 3, 2), 24
rng = np.random.default_rng(7)
IMAGES = rng.uniform(0.35, 0.65, size=(COUNT, *SHAPE)).astype("float32")
FLAT = IMAGES.reshape(COUNT, -1)
# Classes of different steepness, so that the likeliest other class is not always the nearest.
WEIGHTS = (rng.normal(size=(12, 4)) * [1.0, 2.0, 4.0, 8.0]).astype("float32")


def logits(classes):
    """Of a linear model with the first so many of the weights, which divides the images among its classes."""
    outputs = FLAT @ WEIGHTS[:, :classes]
    return outputs - outputs.mean(axis=0)


@pytest.fixture(scope="module")
def problem(linear):
    """Gives a linear model of so many classes, with the labels that it gives to the images."""

    @functools.cache
    def build(classes):
        bias = -(FLAT @ WEIGHTS[:, :classes]).mean(axis=0)
        return linear(WEIGHTS[:, :classes], SHAPE, bias), np.argmax(logits(classes), axis=1).astype("int32")

    return build


def distances(classes, norm, confidence=0.0):
    """From each image to where each class exceeds the image's own by `confidence`, inf for its own."""
    outputs = logits(classes)
    own = outputs.argmax(axis=1)
    difference = WEIGHTS[:, None, :classes] - WEIGHTS[:, own, None]
    dual = np.abs(difference).sum(axis=0) if norm == "linf" else np.linalg.norm(difference, axis=0)
    gap = outputs.max(axis=1, keepdims=True) - outputs + confidence
    return np.divide(gap, dual, out=np.full_like(gap, np.inf), where=dual > 0)


def sizes(attack, adversarial, images=IMAGES):
    return np.asarray(ThreatModel(attack.norm).distance(adversarial, images))


def replace(attack, **options):
    return type(attack)(**{**attack.get_config(), **options})


@every_attack
def test_it_finds_the_nearest_point_of_a_hyperplane(problem, attack):
    model, labels = problem(2)
    found = attack(model, IMAGES, labels)
    exact = distances(2, attack.norm).min(axis=1)
    assert (classify(model, found) != labels).all()
    far = exact > 0.02  # steps have a least size
    excess = (sizes(attack, found) / exact)[far]
    assert far.sum() > 10 and excess.min() > 1 - 1e-4
    assert np.median(excess) < 1.02 and excess.max() < 1.06


@every_attack
def test_at_the_bounds_a_result_is_misclassified_or_the_image_itself(digits_classifier, digits, attack):
    images, labels = digits[0][:40], digits[1][:40]
    found = attack(digits_classifier, images, labels)
    moved = sizes(attack, found, images) > 0
    assert found.min() >= 0 and found.max() <= 1
    assert (np.asarray(margin(labels, digits_classifier(found)))[moved] > -1e-5).all()
    assert moved.mean() > 0.8


@every_attack
def test_what_is_misclassified_already_stays(problem, attack):
    model, labels = problem(4)
    np.testing.assert_array_equal(attack(model, IMAGES, (labels + 1) % 4), IMAGES)


@every_attack
def test_a_radius_decides_what_counts(problem, attack):
    model, labels = problem(4)
    distance = sizes(attack, attack(model, IMAGES, labels))
    eps = float(np.median(distance)) * 1.001
    found = replace(attack, eps=eps)(model, IMAGES, labels)
    broken = classify(model, found) != labels
    np.testing.assert_array_equal(broken, distance <= eps)
    np.testing.assert_array_equal(found[~broken], IMAGES[~broken])
    assert sizes(attack, found).max() <= eps + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_the_nearest_of_all_classes(problem, norm):
    model, labels = problem(4)
    exact = distances(4, norm)
    likeliest, every, untargeted = (
        sizes(attack, attack(model, IMAGES, labels))
        for attack in (
            FABTargeted(norm=norm, steps=15, classes=1),
            FABTargeted(norm=norm, steps=15, classes=3),
            FAB(norm=norm, steps=15),
        )
    )
    first = np.argsort(-logits(4), axis=1)[:, 1]
    np.testing.assert_allclose(likeliest, exact[np.arange(COUNT), first], rtol=0.03)
    np.testing.assert_allclose(every, exact.min(axis=1), rtol=0.03)
    np.testing.assert_allclose(untargeted, exact.min(axis=1), rtol=0.03)
    assert (every < 0.9 * likeliest).any()


@pytest.mark.parametrize("confidence", [0.0, 0.5, 2.0])
def test_carlini_and_wagner_keep_their_confidence(problem, confidence):
    model, labels = problem(2)
    attack = replace(ATTACKS[1], confidence=confidence)
    found = attack(model, IMAGES, labels)
    assert (np.asarray(margin(labels, model(found))) > confidence - 1e-4).all()
    exact = distances(2, "l2", confidence).min(axis=1)
    np.testing.assert_allclose(sizes(attack, found), exact, rtol=0.03, atol=5e-3)


@keras.saving.register_keras_serializable("tests")
class Examples(keras.layers.Layer):
    """Passes its input on and counts the examples in it."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign_add(keras.ops.shape(inputs)[0])
        return inputs


@pytest.fixture
def counted():
    """A linear model with its labels of the images, and a function that gives how many it has looked at."""
    examples, dense = Examples(), keras.layers.Dense(4)
    model = keras.Sequential([keras.Input(SHAPE), examples, keras.layers.Flatten(), dense])
    dense.set_weights([WEIGHTS, -(FLAT @ WEIGHTS).mean(axis=0)])
    examples.count.assign(0)
    return model, np.argmax(logits(4), axis=1).astype("int32"), lambda: int(examples.count)


@every_attack
def test_inside_the_radius_the_search_ends(counted, attack):
    model, labels, looked = counted
    attack(model, IMAGES, labels)
    without_limit = looked()
    replace(attack, eps=1.0)(model, IMAGES, labels)
    assert looked() - without_limit < 0.7 * without_limit


@pytest.mark.parametrize(("abort_early", "steps"), [(False, 20), (True, 4)])
def test_an_optimisation_that_gains_nothing_ends_early(counted, abort_early, steps):
    """On a model whose logits never change, it ends after two of ten looks at the loss."""
    model, labels, looked = counted
    model.layers[-1].set_weights([np.zeros_like(WEIGHTS), np.eye(4)[0]])
    CWL2(steps=20, binary_search_steps=3, abort_early=abort_early)(model, IMAGES, np.zeros_like(labels))
    assert looked() == COUNT * (1 + 3 * steps)


def ddn_in_numpy(weights, bias, images, labels, steps, gamma=0.05):
    """Distances that DDN finds on a linear model, in float64."""
    flat = images.reshape(len(images), -1).astype("float64")
    true = np.eye(weights.shape[1])[labels]
    length = np.linalg.norm
    widest = length(np.maximum(flat, 1 - flat), axis=1)
    delta, radius, best = np.zeros_like(flat), np.ones(len(flat)), np.full(len(flat), np.inf)
    for index in range(steps):
        logits = (flat + delta) @ weights + bias
        fooled, size = logits.argmax(1) != labels, length(delta, axis=1)
        best = np.where(fooled & (size < best), size, best)
        scores = np.exp(logits - logits.max(1, keepdims=True))
        gradient = (scores / scores.sum(1, keepdims=True) - true) @ weights.T
        step = 0.01 + 0.99 * (1 + np.cos(np.pi * index / steps)) / 2
        delta += step * gradient / length(gradient, axis=1, keepdims=True)
        radius = np.minimum(radius * np.where(fooled, 1 - gamma, 1 + gamma), widest)
        delta *= (radius / length(delta, axis=1))[:, None]
        delta = np.clip(flat + delta, 0, 1) - flat
    return best


def test_carlini_and_wagner_descend_by_adam():
    """Down sum (x - 0.3)^2 in three calls, against Kingma & Ba 2015, algorithm 1."""
    images = np.zeros((2, 3), "float32")
    state = _start(none_yet(images))

    def loss(change):
        candidates = images + change
        values = keras.ops.sum(keras.ops.square(candidates - 0.3), axis=1)
        return values, candidates, keras.ops.zeros_like(values, dtype="bool")

    for first, count in ((0, 1), (1, 4), (5, 20)):
        state = descend(loss, ThreatModel("l2"), images, state, np.float32(0.05), first, np.int32(count))
    x, mean, square = np.zeros((2, 3)), 0.0, 0.0
    for number in range(1, 26):
        gradient = 2 * (x - 0.3)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        x = x - 0.05 * (mean / (1 - 0.9**number)) / (np.sqrt(square / (1 - 0.999**number)) + 1e-8)
    np.testing.assert_allclose(state.change, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_ddn_keeps_to_its_rule(digits_classifier, digits, steps):
    right = classify(digits_classifier, digits[0][:100]) == digits[1][:100]
    images, labels = digits[0][:100][right], digits[1][:100][right]
    kernel, bias = digits_classifier.layers[-1].get_weights()
    expected = ddn_in_numpy(kernel.astype("float64"), bias, images, labels, steps)
    attack = DDN(steps=steps)
    found = sizes(attack, attack(digits_classifier, images, labels), images)
    np.testing.assert_allclose(found, np.where(np.isinf(expected), 0, expected), atol=1e-4)


@pytest.fixture(scope="module")
def plateau():
    """A model of one decisive pixel: without a gradient within 0.05 of 0.5, misclassified beyond 0.075."""
    inputs = keras.Input((4, 4, 1))
    pixel = keras.layers.Flatten()(inputs)[:, :1]
    outside = keras.ops.relu(keras.ops.abs(pixel - 0.5) - 0.05)
    return keras.Model(inputs, keras.ops.concatenate([0.05 - outside, outside], axis=1))


@pytest.mark.parametrize(
    "attack",
    [DDN(steps=50), FAB(eps=0.4, steps=10, restarts=6), FABTargeted(eps=0.4, steps=10, restarts=6)],
    ids=lambda attack: type(attack).__name__,
)
def test_chance_leads_off_a_plateau(plateau, attack):
    """Where there is no gradient DDN takes a random direction, and FAB restarts at a random point."""
    images, labels = np.full((8, 4, 4, 1), 0.5, "float32"), np.zeros(8, "int32")
    first, again, other = (attack(plateau, images, labels, seed=seed) for seed in (3, 3, 4))
    assert (classify(plateau, first) != labels).all()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_restarts_fab_stays_on_a_plateau(plateau):
    images, labels = np.full((8, 4, 4, 1), 0.5, "float32"), np.zeros(8, "int32")
    np.testing.assert_array_equal(FAB(eps=0.4, steps=10)(plateau, images, labels), images)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (DDN, {"norm": "linf"}, "norm.*'linf'"),
        (DDN, {"steps": 0}, "steps must be an integer >= 1"),
        (DDN, {"init_eps": 0}, "init_eps must be"),
        (DDN, {"init_eps": float("inf")}, "init_eps must be"),
        (DDN, {"gamma": 1.0}, r"gamma must be in \(0, 1\)"),
        (DDN, {"gamma": "fast"}, "gamma must be"),
        (CWL2, {"norm": "linf"}, "norm.*'linf'"),
        (CWL2, {"steps": True}, "steps must be an integer"),
        (CWL2, {"binary_search_steps": 0}, "binary_search_steps must be"),
        (CWL2, {"learning_rate": 0}, "learning_rate must be"),
        (CWL2, {"initial_const": -1}, "initial_const must be"),
        (CWL2, {"confidence": -0.5}, "confidence must be"),
        (CWL2, {"abort_early": 1}, "abort_early must be True or False"),
        (FAB, {"steps": 2.5}, "steps must be an integer"),
        (FAB, {"restarts": 0}, "restarts must be"),
        (FABTargeted, {"classes": 0}, "classes must be"),
        (FAB, {"eps": float("nan")}, "eps must be"),
    ],
)
def test_wrong_options_are_refused(cls, options, message):
    with pytest.raises(InputError, match=message):
        cls(**options)


def test_without_eps_there_is_no_limit():
    assert {cls().eps for cls in (DDN, CWL2, FAB, FABTargeted)} == {float("inf")}
