"""FTC, SO, BIBO and MMC against float64 oracles, automatic differentiation and their invariances."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_robust import losses
from keras_robust.errors import InputError
from keras_robust.layers import max_mahalanobis_centers

rng = np.random.default_rng(0)
CLASSES, DIM = 4, 6
CENTERS = max_mahalanobis_centers(CLASSES, DIM)
LABELS = np.arange(12) % CLASSES
FEATURES = rng.normal(scale=3, size=(12, DIM)).astype("float32")
OTHERS = rng.normal(size=(12, DIM)).astype("float32")
quick = settings(max_examples=30)


def cosine(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def ftc_oracle(labels, features):
    return 1 - cosine(features, CENTERS[labels])


def so_oracle(labels, features):
    return np.sin(np.arccos(cosine(features, CENTERS[labels]))) / np.linalg.norm(features, axis=1)


def mmc_oracle(labels, features):
    return 0.5 * ((features - 10 * CENTERS[labels]) ** 2).sum(axis=1)


def bibo_oracle(features, others):
    return 1 - cosine(features.astype("float64"), others)


# name: (function of two arguments, loss, oracle, first argument)
CASES = {
    "ftc": (
        lambda y, z: losses.feature_to_center(y, z, CENTERS),
        losses.FeatureToCenter(CLASSES),
        ftc_oracle,
        LABELS,
    ),
    "so": (
        lambda y, z: losses.second_order(y, z, CENTERS),
        losses.SecondOrder(CLASSES),
        so_oracle,
        LABELS,
    ),
    "mmc": (
        lambda y, z: losses.max_mahalanobis_center(y, z, 10 * CENTERS),
        losses.MaxMahalanobisCenter(CLASSES, scale=10.0),
        mmc_oracle,
        LABELS,
    ),
    "bibo": (losses.cosine_distance, losses.BoundedInputBoundedOutput(), bibo_oracle, OTHERS),
}
every_case = pytest.mark.parametrize(("function", "loss", "oracle", "first"), CASES.values(), ids=CASES)


@every_case
def test_values_equal_the_oracle(function, loss, oracle, first):
    expected = oracle(first, FEATURES.astype("float64"))
    values = function(first, FEATURES)
    assert values.dtype == "float32" and values.shape == (12,)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loss(first, FEATURES), expected.mean(), rtol=1e-5)
    weights = np.linspace(0, 2, 12, dtype="float32")
    np.testing.assert_allclose(
        loss(first, FEATURES, sample_weight=weights), (weights * expected).mean(), rtol=1e-5
    )


@every_case
def test_gradients_equal_finite_differences(function, loss, oracle, first):
    features, step = tf.constant(FEATURES), 1e-6
    with tf.GradientTape() as tape:
        tape.watch(features)
        values = function(first, features)
    gradient = tape.gradient(values, features).numpy()
    for column in range(DIM):
        nudge = step * np.eye(DIM)[column]
        expected = (oracle(first, FEATURES + nudge) - oracle(first, FEATURES - nudge)) / (2 * step)
        np.testing.assert_allclose(gradient[:, column], expected, rtol=1e-4, atol=1e-5)


@quick
@given(
    features=arrays.arrays("float32", (CLASSES, DIM), elements=st.floats(-8, 8, width=32)),
    scale=st.floats(0.1, 10),
)
def test_second_order_is_the_length_of_the_gradient_of_ftc(features, scale):
    features = tf.constant(scale * features + FEATURES[:CLASSES])
    labels = np.arange(CLASSES)
    with tf.GradientTape() as tape:
        tape.watch(features)
        values = losses.feature_to_center(labels, features, CENTERS)
    gradient = tf.norm(tape.gradient(values, features), axis=1)
    np.testing.assert_allclose(losses.second_order(labels, features, CENTERS), gradient, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_second_order_is_zero_and_flat_where_features_are_on_the_line_of_their_center(sign):
    features = tf.constant((sign * 5 * CENTERS).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(features)
        values = losses.second_order(np.arange(CLASSES), features, CENTERS)
    assert np.abs(values).max() < 1e-6
    assert np.abs(tape.gradient(values, features)).max() < 0.05  # finite differences there jump by 0.2


@pytest.mark.parametrize("angle", [1e-3, 1e-2, 1.5, 3.1])
def test_second_order_keeps_small_angles(angle):
    features = np.zeros((1, 2), "float32")
    features[0] = np.cos(angle), np.sin(angle)
    value = float(losses.second_order([0], 4 * features, np.eye(2))[0])
    assert value == pytest.approx(np.sin(angle) / 4, rel=1e-3)


def test_longer_features_lower_second_order_and_nothing_else():
    for function in (CASES["ftc"][0], CASES["bibo"][0]):
        first = LABELS if function is CASES["ftc"][0] else OTHERS
        np.testing.assert_allclose(function(first, 100 * FEATURES), function(first, FEATURES), atol=1e-6)
    so = CASES["so"][0]
    np.testing.assert_allclose(so(LABELS, 100 * FEATURES), np.asarray(so(LABELS, FEATURES)) / 100, rtol=1e-4)


def test_features_of_length_zero_have_finite_values_and_gradients():
    features = tf.zeros((4, DIM))
    for function, _, _, first in CASES.values():
        with tf.GradientTape() as tape:
            tape.watch(features)
            values = function(first[:4], features)
        assert np.isfinite(values).all() and np.isfinite(tape.gradient(values, features)).all()


def test_cosine_distance_takes_an_example_as_one_vector():
    maps, others = FEATURES.reshape(3, 2, 3, 4), OTHERS.reshape(3, 2, 3, 4)
    expected = losses.cosine_distance(FEATURES.reshape(3, -1), OTHERS.reshape(3, -1))
    np.testing.assert_allclose(losses.cosine_distance(maps, others), expected, atol=1e-6)


def test_bibo_moves_both_sides():
    a, b = tf.constant(FEATURES), tf.constant(OTHERS)
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        value = losses.BoundedInputBoundedOutput()(a, b)
    assert all(np.abs(gradient).max() > 1e-4 for gradient in tape.gradient(value, [a, b]))


@every_case
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", None])
def test_object_round_trips(function, loss, oracle, first, reduction):
    loss = type(loss).from_config({**loss.get_config(), "reduction": reduction, "name": "mine"})
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert (again.name, again.reduction) == ("mine", reduction)
    np.testing.assert_array_equal(again(first, FEATURES), loss(first, FEATURES))


@pytest.mark.parametrize("name", ["ftc", "so", "mmc"])
def test_a_plain_model_of_features_compiles_with_it_and_learns(name, digits, tmp_path):
    """On digits: the loss falls; and with FTC and MMC the nearest centre tells the class."""
    images, labels = digits[0][:600], digits[1][:600]
    loss = {
        "ftc": losses.FeatureToCenter(10),
        "so": losses.SecondOrder(10),
        "mmc": losses.MaxMahalanobisCenter(10, scale=2.0),
    }[name]
    random.seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16)])
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    before = model.evaluate(images, labels, verbose=0)
    model.fit(images, labels[:, None], epochs=15, batch_size=32, shuffle=False, verbose=0)
    after = model.evaluate(images, labels, verbose=0)
    assert after < 0.5 * before
    if name != "so":
        cosines = model.predict(images, verbose=0) @ max_mahalanobis_centers(10, 16).T
        assert (cosines.argmax(axis=1) == labels).mean() > 0.9
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(images, labels, verbose=0) == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("make", [losses.FeatureToCenter, losses.SecondOrder, losses.MaxMahalanobisCenter])
def test_wrong_options_are_refused(make):
    with pytest.raises(InputError, match="num_classes must be an integer >= 2"):
        make(1)
    with pytest.raises(InputError, match="scale must be"):
        losses.MaxMahalanobisCenter(3, scale=0)


@pytest.mark.parametrize("make", [losses.FeatureToCenter, losses.SecondOrder, losses.MaxMahalanobisCenter])
def test_what_is_not_labels_and_features_is_refused(make):
    loss = make(CLASSES)
    for count in (1, 3):
        with pytest.raises(InputError, match=rf"Labels must be integers \(B,\).*\({count}, 4\)"):
            loss(np.eye(CLASSES, dtype="float32")[LABELS[:count]], FEATURES[:count])
    with pytest.raises(InputError, match=r"Features must be \(B, d\).*\(12, 2, 3\)"):
        loss(LABELS, FEATURES.reshape(12, 2, 3))
