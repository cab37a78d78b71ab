"""Fixed centres: as far apart as geometry allows; and the layers that classify by them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_robust.errors import InputError
from keras_robust.layers import CosineCenters, DistanceCenters, max_mahalanobis_centers

rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(40, 6)).astype("float32")
LAYERS = {
    "cosine": lambda **options: CosineCenters(5, scale=3.0, **options),
    "normalized": lambda **options: CosineCenters(5, scale=3.0, normalize=True, **options),
    "distance": lambda **options: DistanceCenters(5, scale=3.0, **options),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def between(centers):
    """Dot products of different centres."""
    dots = centers @ centers.T
    return dots[~np.eye(len(dots), dtype=bool)]


@pytest.mark.parametrize("num_classes", range(2, 201))
def test_simplex_in_just_enough_dimensions(num_classes):
    centers = max_mahalanobis_centers(num_classes, num_classes - 1)
    assert centers.shape == (num_classes, num_classes - 1) and centers.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(between(centers), -1 / (num_classes - 1), rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(num_classes=st.integers(2, 200), more=st.integers(0, 300), scale=st.floats(0.1, 100))
def test_simplex_in_more_dimensions_at_any_scale(num_classes, more, scale):
    centers = max_mahalanobis_centers(num_classes, num_classes - 1 + more, scale)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), scale, rtol=1e-12)
    np.testing.assert_allclose(between(centers / scale), -1 / (num_classes - 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (3, 5), (7, 6), (10, 512)])
def test_simplex_is_that_of_the_papers_recursion(num_classes, dim):
    """Algorithm 1 of Pang et al., coordinate by coordinate."""
    expected = np.zeros((num_classes, max(dim, num_classes)))
    for k in range(num_classes):
        for j in range(k):
            expected[k, j] = -(1 / (num_classes - 1) + expected[k] @ expected[j]) / expected[j, j]
        expected[k, k] = np.sqrt(abs(1 - expected[k] @ expected[k]))
    np.testing.assert_allclose(
        max_mahalanobis_centers(num_classes, dim), expected[:, :dim], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(
    ("num_classes", "dim", "best"),
    [
        (5, 2, np.cos(2 * np.pi / 5)),  # a regular polygon
        (9, 2, np.cos(2 * np.pi / 9)),
        (6, 3, 0.0),  # the octahedron
        (12, 3, 5**-0.5),  # the icosahedron
        (16, 8, 0.0),  # Rankin's bound for up to 2 d points
        (10, 7, 0.0),
    ],
)
def test_too_few_dimensions_are_used_as_well_as_is_known_to_be_possible(num_classes, dim, best):
    centers = max_mahalanobis_centers(num_classes, dim)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, rtol=0, atol=1e-12)
    assert between(centers).max() == pytest.approx(best, abs=0.01)
    again = max_mahalanobis_centers(num_classes, dim)
    again[0] = 0.0  # belongs to the caller
    np.testing.assert_array_equal(max_mahalanobis_centers(num_classes, dim), centers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 5), "num_classes must be an integer >= 2.*num_classes=1"),
        ((2.0, 5), "num_classes must be"),
        ((3, 1), "dim must be an integer >= 2 for 3 centres.*dim=1"),
        ((2, 0), "dim must be an integer >= 1"),
        ((3, 2, 0.0), "scale must be a finite number > 0.*scale=0.0"),
        ((3, 2, float("inf")), "scale must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        max_mahalanobis_centers(*arguments)


def test_logits_are_what_they_are_defined_to_be():
    centers = max_mahalanobis_centers(5, 6)
    lengths = np.linalg.norm(FEATURES, axis=1, keepdims=True)
    away = FEATURES[:, None] - 3 * centers
    expected = {
        "cosine": 3 * FEATURES @ centers.T,
        "normalized": 3 * FEATURES @ centers.T / lengths,
        "distance": -(away**2).sum(axis=-1),
    }
    for name, make in LAYERS.items():
        np.testing.assert_allclose(make()(FEATURES), expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


@every_layer
def test_predictions_follow_their_rule(make):
    centers, features = max_mahalanobis_centers(5, 6), FEATURES.astype("float64")
    cosines = features @ centers.T / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_array_equal(np.argmax(make()(FEATURES), axis=1), cosines.argmax(axis=1))


def test_features_of_length_zero_have_logits_of_zero():
    np.testing.assert_array_equal(LAYERS["normalized"]()(np.zeros((2, 6), "float32")), np.zeros((2, 5)))


@pytest.mark.parametrize("length", [0.0, 300.0])
def test_half_precision_takes_features_of_any_length(length):
    """Their squares would be out of its range."""
    features = np.full((2, 6), length, "float32")
    head = CosineCenters(5, scale=3.0, normalize=True, dtype="float16")
    cosines = np.sign(features) / np.sqrt(6) @ max_mahalanobis_centers(5, 6).T
    np.testing.assert_allclose(head(features), 3 * cosines, atol=5e-3)


@every_layer
def test_centers_never_train(make):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6), make()])
    layer = model.layers[-1]
    assert not layer.trainable_weights and len(layer.weights) == 1
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.get_weights()
    model.fit(FEATURES, np.arange(40) % 5, verbose=0)
    np.testing.assert_allclose(layer.centers, max_mahalanobis_centers(5, 6), atol=1e-7)
    assert (model.get_weights()[0] != before[0]).any()


@every_layer
def test_logits_are_float32_under_a_mixed_policy(make):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(6), make()])
    finally:
        keras.config.set_dtype_policy(before)
    assert model(FEATURES).dtype == "float32" and model.layers[0].compute_dtype == "bfloat16"


@every_layer
def test_it_is_saved_with_its_options(make, tmp_path):
    model = keras.Sequential([keras.Input((6,)), make(name="logits")])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(FEATURES), model(FEATURES))
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineCenters(1), "num_classes must be"),
        (lambda: DistanceCenters(5, scale=-1.0), "scale must be"),
        (lambda: CosineCenters(5)(np.zeros((2, 3, 3, 4), "float32")), r"\(B, d\).*\(2, 3, 3, 4\)"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
