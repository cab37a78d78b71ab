"""RayS: its search, its queries, and what it takes for a model."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust.attacks import RayS, classify
from keras_robust.errors import InputError
from keras_robust.exporting import export, load_exported

rng = np.random.default_rng(5)
COLOUR = rng.uniform(size=(5, 3, 5, 2)).astype("float32")
WEIGHTS = rng.normal(size=(30, 3)).astype("float32")


class Counting:
    """A function from images to labels that counts the images it was asked about, call by call."""

    def __init__(self, labeller):
        self.labeller, self.asked = labeller, []

    def __call__(self, images):
        assert images.dtype == np.float32 and images.ndim == 4
        self.asked.append(len(images))
        return self.labeller(images)


def linear_labels(images):
    return (images.reshape(len(images), -1) @ WEIGHTS).argmax(-1)


def bumpy_labels(images):
    """A boundary that is far from flat."""
    return (np.sin(9 * images.reshape(len(images), -1)) @ WEIGHTS).argmax(-1)


def never_fooled(images):
    return np.zeros(len(images), int)


def in_numpy(model):
    """The labels of a linear classifier, quickly."""
    kernel, bias = model.get_weights()
    return lambda images: (images.reshape(len(images), -1) @ kernel + bias).argmax(-1)


class Spent(Exception):
    """There are no queries left."""


def plain_search(labeller, image, label, queries, tolerance=1e-3, eps=0.0):
    """The search of one image, channels first, one query at a time: its image, distance and queries."""
    image = np.moveaxis(image, -1, 0)
    found, signs, distance, used = image, np.ones_like(image), math.inf, 0

    def fooled(ray, length):
        nonlocal found, signs, distance, used
        if used == queries or distance <= eps:
            raise Spent
        used += 1
        point = np.clip(image + np.float32(length) * ray, 0, 1)
        if labeller(np.moveaxis(point, 0, -1)[None])[0] == label:
            return False
        if abs(point - image).max() < distance:
            found, signs, distance = point, ray, abs(point - image).max()
        return True

    try:
        fooled(signs, 0.0)
        level = block = 0
        while True:
            length = math.ceil(image.size / 2**level)
            ray = signs.flatten()
            ray[block * length : (block + 1) * length] *= -1
            ray = ray.reshape(image.shape)
            low, high = 0.0, min(float(distance), 1.0)
            if fooled(ray, high):
                while high - low > tolerance / math.sqrt(image.size):
                    middle = (low + high) / 2
                    low, high = (low, middle) if fooled(ray, middle) else (middle, high)
            block += 1
            if block * length >= image.size:
                level, block = level + 1, 0
    except Spent:
        return np.moveaxis(found, 0, -1), distance, used


@pytest.mark.parametrize("labeller", [linear_labels, bumpy_labels])
@pytest.mark.parametrize("eps", [math.inf, 0.05])
@settings(max_examples=5)
@given(queries=st.integers(1, 250), tolerance=st.sampled_from([1e-1, 1e-3, 1e-5]))
def test_it_is_the_published_search(labeller, eps, queries, tolerance):
    labels = linear_labels(COLOUR)
    labels[:2] = (labels[:2] + 1) % 3  # some are misclassified as they are
    found = RayS(eps=eps, queries=queries, tolerance=tolerance).search(labeller, COLOUR, labels)
    goal = 0.0 if eps == math.inf else eps
    for row, (image, label) in enumerate(zip(COLOUR, labels, strict=True)):
        nearest, distance, used = plain_search(labeller, image, label, queries, tolerance, goal)
        assert (found.distance[row], found.queries[row]) == (distance, used)
        np.testing.assert_array_equal(found.images[row], nearest if distance <= eps else image)


@pytest.mark.parametrize("shape", [(4, 4, 1), (3, 3, 2)])
def test_on_a_linear_classifier_it_comes_to_the_nearest_point_there_is(linear, shape):
    size = math.prod(shape)
    weights = rng.normal(size=(size, 2)).astype("float32")
    images = rng.uniform(0.4, 0.6, (8, *shape)).astype("float32")
    labeller = in_numpy(linear(weights, shape))
    labels = labeller(images)
    slope = weights[:, 1] - weights[:, 0]
    exact = abs(images.reshape(8, -1) @ slope) / abs(slope).sum()
    found = RayS(queries=800, tolerance=1e-4).search(labeller, images, labels)
    assert exact.max() < 0.4, "the bounds play no part"
    assert (found.distance >= exact - 1e-6).all()
    np.testing.assert_allclose(found.distance, exact, atol=1e-4)
    assert (labeller(found.images) != labels).all()
    assert found.adbd == pytest.approx(exact.mean(), abs=1e-4)


@pytest.mark.parametrize("queries", [1, 2, 17, 300])
@pytest.mark.parametrize("eps", [math.inf, 0.1])
def test_queries_are_counted_exactly(digits_classifier, digits, queries, eps):
    images, labels = digits[0][:12], digits[1][:12]
    counted = Counting(in_numpy(digits_classifier))
    attack = RayS(eps=eps, queries=queries)
    together = attack.search(counted, images, labels)
    assert sum(counted.asked) == together.queries.sum()
    assert len(counted.asked) == together.queries.max() <= queries, "no image is asked about twice in a call"
    for row in range(len(images)):
        counted.asked.clear()
        alone = attack.search(counted, images[row : row + 1], labels[row : row + 1])
        assert sum(counted.asked) == alone.queries[0] == together.queries[row]
    still = together.distance > (0.0 if eps == math.inf else eps)
    assert (together.queries[still] == queries).all(), "what is not settled is given all of them"
    assert queries < 300 or eps == math.inf or (together.queries < queries).any()


def test_a_stubborn_image_costs_all_its_queries_and_comes_back_as_it_was():
    found = RayS(queries=37).search(never_fooled, COLOUR, np.zeros(5, int))
    np.testing.assert_array_equal(found.images, COLOUR)
    assert (found.distance == math.inf).all() and (found.queries == 37).all() and found.adbd == math.inf


@pytest.mark.parametrize("eps", [math.inf, 0.3, 0.0])
def test_a_misclassified_image_costs_one_and_is_its_own_nearest(eps):
    found = RayS(eps=eps).search(never_fooled, COLOUR, np.ones(5, int))
    np.testing.assert_array_equal(found.images, COLOUR)
    assert (found.distance == 0).all() and (found.queries == 1).all()


def test_the_distance_is_that_of_the_image(digits_classifier, digits):
    images, labels = digits[0][:20], digits[1][:20]
    found = RayS(queries=200).search(digits_classifier, images, labels)
    np.testing.assert_array_equal(found.distance, abs(found.images - images).max(axis=(1, 2, 3)))
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert (classify(digits_classifier, found.images) != labels).all()


def test_more_queries_only_bring_it_nearer(digits_classifier, digits):
    images, labels = digits[0][:20], digits[1][:20]
    few, more, many = (
        RayS(queries=queries).search(in_numpy(digits_classifier), images, labels).distance
        for queries in (30, 100, 400)
    )
    assert (many <= more).all() and (more <= few).all() and many.mean() < 0.7 * few.mean()


def test_outside_eps_there_is_a_distance_but_no_image():
    labels = linear_labels(COLOUR)
    free = RayS(queries=400).search(linear_labels, COLOUR, labels)
    eps = float(np.median(free.distance))
    found = RayS(eps=eps, queries=400).search(linear_labels, COLOUR, labels)
    outside = found.distance > eps
    assert 0 < outside.sum() < len(COLOUR) and np.isfinite(found.distance).all()
    np.testing.assert_array_equal(found.images[outside], COLOUR[outside])
    assert (linear_labels(found.images) != labels).tolist() == (~outside).tolist()


def test_a_call_gives_the_images_of_the_search():
    labels, attack = linear_labels(COLOUR), RayS(eps=0.1, queries=90)
    found = attack.search(linear_labels, COLOUR, labels)
    for seed, batch_size in ((0, 128), (1, 2)):
        again = attack(linear_labels, COLOUR, labels, seed=seed, batch_size=batch_size)
        np.testing.assert_array_equal(again, found.images)


def test_a_model_and_its_labels_are_attacked_alike(conv_classifier):
    images = rng.uniform(size=(4, 8, 8, 1)).astype("float32")
    labels = classify(conv_classifier, images)
    attack = RayS(queries=60)
    by_model = attack.search(conv_classifier, images, labels)
    by_labels = attack.search(lambda images: classify(conv_classifier, images), images, labels)
    for one, other in zip(by_model, by_labels, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(attack.run(conv_classifier, images, labels, key=(0, 0)), by_model.images)


def test_an_exported_file_is_attacked(digits_classifier, digits, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the LiteRT runtime is not installed")
    images, labels = digits[0][:10], digits[1][:10]
    logits_of = load_exported(export(digits_classifier, tmp_path / "digits.tflite"))
    found = RayS(queries=150).search(lambda images: logits_of(images).argmax(-1), images, labels)
    assert (logits_of(found.images).argmax(-1) != labels).all()
    expected = RayS(queries=150).search(digits_classifier, images, labels)
    np.testing.assert_allclose(found.distance, expected.distance, atol=1e-3)
    assert 0 < found.adbd < 0.3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda images: images.reshape(len(images), -1), "float32 of shape (5, 30)"),
        (lambda images: np.zeros(len(images)), "float64 of shape (5,)"),
        (lambda images: np.zeros((len(images), 1), int), "int64 of shape (5, 1)"),
        (lambda images: np.zeros(3, int), "int64 of shape (3,)"),
        (lambda images: None, "object of shape ()"),
    ],
)
def test_a_function_that_gives_no_labels_is_told(answer, words):
    with pytest.raises(InputError) as error:
        RayS(queries=3)(answer, COLOUR, np.zeros(5, int))
    assert "must return integer labels" in str(error.value) and words in str(error.value)


@pytest.mark.parametrize(
    ("model", "images", "labels", "words"),
    [
        ("at_mnist", COLOUR, np.zeros(5, int), "a function from images to integer labels. Received: str"),
        (never_fooled, 255 * COLOUR, np.zeros(5, int), "must be in [0, 1]"),
        (never_fooled, COLOUR[0], np.zeros(5, int), "Images have the wrong shape"),
        (never_fooled, COLOUR, np.zeros(4, int), "4 labels for 5 images"),
        (never_fooled, COLOUR, np.zeros(5), "Labels must be integers"),
        (never_fooled, COLOUR, np.eye(5), "Labels must have shape (N,)"),
    ],
)
def test_bad_arguments_are_told(model, images, labels, words):
    with pytest.raises(InputError) as error:
        RayS(queries=3)(model, images, labels)
    assert words in str(error.value)


def test_a_function_has_no_copy_in_another_precision():
    with pytest.raises(InputError, match="search_dtype='bfloat16'; valid: 'float32'"):
        RayS(queries=3, search_dtype="bfloat16")(never_fooled, COLOUR, np.zeros(5, int))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries must be an integer >= 1"),
        ({"queries": 10.0}, "queries must be an integer >= 1"),
        ({"tolerance": 0}, "tolerance must be a finite number > 0"),
        ({"tolerance": math.inf}, "tolerance must be a finite number > 0"),
        ({"norm": "l2"}, "RayS works in.*linf.*l2"),
    ],
)
def test_own_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        RayS(**options)


def test_it_survives_saving():
    attack = RayS(queries=7, tolerance=0.5)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack)) == attack
