"""Square: its queries, its schedule and its strength."""

import keras
import numpy as np
import pytest

from keras_robust.attacks import Square, classify


@keras.saving.register_keras_serializable("tests")
class Counter(keras.layers.Layer):
    """Passes its input on and counts the forward passes and the examples in them."""

    def build(self, shape):
        self.passes = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.examples = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        self.passes.assign_add(1)
        self.examples.assign_add(keras.ops.shape(inputs)[0])
        return inputs


def counted(shape, bias):
    """A classifier that says class 0 with margin -bias whatever it sees, and its counter."""
    counter = Counter()
    dense = keras.layers.Dense(2, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input(shape), counter, keras.layers.Flatten(), dense])
    dense.bias.assign([0.0, bias])
    counter.passes.assign(0)
    counter.examples.assign(0)
    return model, counter


rng = np.random.default_rng(3)
IMAGES = rng.uniform(size=(3, 6, 7, 2)).astype("float32")
ZEROS = np.zeros(3, "int32")


@pytest.mark.parametrize("queries", [1, 2, 17, 251, 252])
def test_a_stubborn_example_costs_all_its_queries(queries):
    model, counter = counted(IMAGES.shape[1:], bias=-1.0)
    Square(eps=0.1, queries=queries)(model, IMAGES, ZEROS)
    assert int(counter.passes) == queries
    assert int(counter.examples) == 3 * queries


def test_a_broken_example_costs_one():
    model, counter = counted(IMAGES.shape[1:], bias=1.0)
    Square(eps=0.1, queries=1000)(model, IMAGES, ZEROS)
    assert int(counter.examples) == 3


def test_the_first_query_is_vertical_stripes():
    model, _ = counted(IMAGES.shape[1:], bias=-1.0)
    grey = np.full_like(IMAGES, 0.5)
    delta = Square(eps=0.1, queries=1)(model, grey, ZEROS) - grey
    np.testing.assert_allclose(abs(delta), 0.1, atol=1e-6)
    np.testing.assert_array_equal(delta, np.broadcast_to(delta[:, :1], delta.shape))
    assert len(np.unique(np.sign(delta[:, 0]).reshape(3, -1), axis=0)) == 3
    clipped = Square(eps=0.7, queries=1)(model, grey, ZEROS)
    assert set(np.unique(clipped)) == {0, 1}


def test_a_query_that_gains_nothing_changes_nothing():
    model, _ = counted(IMAGES.shape[1:], bias=-1.0)
    first, many = (Square(eps=0.1, queries=queries)(model, IMAGES, ZEROS) for queries in (1, 40))
    np.testing.assert_array_equal(first, many)


PUBLISHED = {1: 0, 10: 0, 11: 1, 50: 1, 51: 2, 201: 3, 501: 4, 1001: 5, 2001: 6, 4001: 7, 6001: 8, 8001: 9}


@pytest.mark.parametrize(("query", "halvings"), PUBLISHED.items())
def test_squares_shrink_as_published(query, halvings):
    """Of 10,000 queries on 200x200 pixels; the share starts at 0.8 and is halved nine times."""
    side = Square(eps=0.1, queries=10_000, p_init=0.8)._sides((1, 200, 200, 3), query, query + 1)
    assert side == [round(np.sqrt(0.8 / 2**halvings * 200 * 200))]


@pytest.mark.parametrize("shape", [(1, 1, 5, 1), (1, 2, 2, 1), (1, 6, 7, 2), (1, 30, 4, 3)])
def test_squares_fit_into_the_image(shape):
    sides = Square(eps=0.1, queries=500)._sides(shape, 1, 500)
    assert sides.shape == (499,) and sides.dtype == "int32"
    assert sides.min() >= 1 and sides.max() <= max(min(shape[1:3]) - 1, 1)
    assert (np.diff(sides) <= 0).all()


def test_every_pixel_can_be_reached(linear):
    """A linear model is broken completely: in the end every pixel stands at its best end of the ball."""
    weights = rng.normal(size=(16, 2)).astype("float32")
    images = np.full((4, 4, 4, 1), 0.5, "float32")
    model = linear(weights, (4, 4, 1), bias=[100.0, 0.0])  # too far to succeed, so that the search goes on
    found = Square(eps=0.2, queries=1500)(model, images, np.zeros(4, "int32"))
    best = 0.5 + 0.2 * np.sign(weights[:, 1] - weights[:, 0]).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(found, np.broadcast_to(best, found.shape), atol=1e-6)


@pytest.mark.parametrize("eps", [0.05, 0.15])
def test_it_finds_almost_all_that_exists_and_nothing_else(digits_classifier, digits, eps):
    """On a linear model the best perturbation towards each class is known."""
    images, labels = digits[0][:100], digits[1][:100]
    kernel, bias = digits_classifier.layers[-1].get_weights()
    flat = images.reshape(100, -1, 1)
    direction = np.sign(kernel[None] - kernel.T[labels][:, :, None])
    best = np.clip(flat + eps * direction, 0, 1)
    scores = np.einsum("ndk,dk->nk", best, kernel) + bias
    own = np.einsum("ndk,nd->nk", best, kernel.T[labels]) + bias[labels][:, None]
    scores[np.arange(100), labels] = -np.inf
    breakable = (scores - own).max(axis=1) > 0
    found = Square(eps=eps, queries=600)(digits_classifier, images, labels)
    assert abs(found - images).max() <= eps + 1e-6 and found.min() >= 0 and found.max() <= 1
    fooled = classify(digits_classifier, found) != labels
    assert not (fooled & ~breakable).any()
    assert breakable.sum() > 5 and fooled.sum() >= 0.8 * breakable.sum()


def test_more_queries_never_lose_a_success(digits_classifier, digits):
    images, labels = digits[0][:100], digits[1][:100]
    few, many = (
        classify(digits_classifier, attack(digits_classifier, images, labels)) != labels
        for attack in (Square(eps=0.1, queries=queries, p_init=0.3) for queries in (1, 500))
    )
    assert not (few & ~many).any() and many.sum() > few.sum()
