"""Square: its queries, its schedule, its proposals and its strength."""

import keras
import numpy as np
import pytest

from keras_robust.attacks import Square, classify
from keras_robust.attacks.square_proposals import PROPOSALS, L2Proposals, LinfProposals, bump
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel


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
every_norm = pytest.mark.parametrize("norm", PROPOSALS)


@every_norm
@pytest.mark.parametrize("queries", [1, 2, 17, 18, 300])
def test_a_stubborn_example_costs_all_its_queries(norm, queries):
    model, counter = counted(IMAGES.shape[1:], bias=-1.0)
    Square(eps=0.1, norm=norm, queries=queries)(model, IMAGES, ZEROS)
    assert int(counter.passes) == queries
    assert int(counter.examples) == 3 * queries


@every_norm
def test_a_broken_example_costs_one(norm):
    model, counter = counted(IMAGES.shape[1:], bias=1.0)
    Square(eps=0.1, norm=norm, queries=1000)(model, IMAGES, ZEROS)
    assert int(counter.examples) == 3


@every_norm
def test_an_example_leaves_the_batch_when_it_is_broken(norm):
    model, counter = counted(IMAGES.shape[1:], bias=-1.0)
    Square(eps=0.1, norm=norm, queries=50)(model, IMAGES, np.array([0, 1, 1], "int32"))
    assert int(counter.examples) == 3 + 49


@every_norm
def test_a_query_that_gains_nothing_changes_nothing(norm):
    model, _ = counted(IMAGES.shape[1:], bias=-1.0)
    first, many = (Square(eps=0.1, norm=norm, queries=queries)(model, IMAGES, ZEROS) for queries in (1, 40))
    np.testing.assert_array_equal(first, many)


def test_the_first_linf_query_is_vertical_stripes():
    model, _ = counted(IMAGES.shape[1:], bias=-1.0)
    grey = np.full_like(IMAGES, 0.5)
    delta = Square(eps=0.1, queries=1)(model, grey, ZEROS) - grey
    np.testing.assert_allclose(abs(delta), 0.1, atol=1e-6)
    np.testing.assert_array_equal(delta, np.broadcast_to(delta[:, :1], delta.shape))
    assert len(np.unique(np.sign(delta[:, 0]).reshape(3, -1), axis=0)) == 3
    clipped = Square(eps=0.7, queries=1)(model, grey, ZEROS)
    assert set(np.unique(clipped)) == {0, 1}


@pytest.mark.parametrize(("shape", "side", "corner"), [((28, 28, 1), 5, (1, 1)), ((32, 34, 3), 6, (1, 2))])
def test_the_first_l2_query_is_a_grid_of_bumps(shape, side, corner):
    grey = np.full((2, *shape), 0.5, "float32")
    start = L2Proposals(ThreatModel("l2", 0.5), grey).start(Noise((0, 1)))
    delta = np.asarray(start) - 0.5
    np.testing.assert_allclose(np.linalg.norm(delta.reshape(2, -1), axis=1), 0.5, rtol=1e-5)
    top, left = corner
    tiles = delta[:, top : top + 5 * side, left : left + 5 * side]
    assert abs(delta).sum() == pytest.approx(abs(tiles).sum())
    tile = np.asarray(bump(side, side)) * 0.5 / np.sqrt(25 * shape[-1])
    seen = set()
    for row, column in np.ndindex(5, 5):
        cut = tiles[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
        for found in np.moveaxis(cut, -1, 1).reshape(-1, side, side):
            match = [np.allclose(found, sign * way, atol=1e-6) for sign in (-1, 1) for way in (tile, tile.T)]
            assert sum(match) == 1
            seen.add(match.index(True))
    assert seen == {0, 1, 2, 3}


PUBLISHED = {1: 0, 10: 0, 11: 1, 50: 1, 51: 2, 201: 3, 501: 4, 1001: 5, 2001: 6, 4001: 7, 6001: 8, 8001: 9}


@pytest.mark.parametrize("options", [{"queries": 10_000}, {"queries": 9_000, "rescale": False}])
@pytest.mark.parametrize(("query", "halvings"), PUBLISHED.items())
def test_squares_shrink_as_published(query, halvings, options):
    """Of 10,000 queries on 200x200 pixels; the share starts at 0.8 and is halved nine times."""
    attack = Square(eps=0.1, p_init=0.8, **options)
    side = attack._sides((1, 200, 200, 3), query, query + 1)
    assert side == [round(np.sqrt(0.8 / 2**halvings * 200 * 200))]


def test_l2_squares_are_odd_and_at_least_three():
    """On MNIST, of 5000 queries: the sides of AutoAttack."""
    attack = Square(eps=0.1, norm="l2", queries=5000, rescale=False)
    ends = [1, 11, 51, 201, 501, 1001, 2001, 4001]
    sides = [int(attack._sides((1, 28, 28, 1), query, query + 1)[0]) for query in ends]
    assert sides == [25, 19, 13, 9, 7, 5, 3, 3]


def test_a_shorter_search_shrinks_them_as_much():
    short, long = Square(eps=0.1, queries=500), Square(eps=0.1, queries=5000)
    shape = (1, 28, 28, 1)
    np.testing.assert_array_equal(short._sides(shape, 0, 500), long._sides(shape, 0, 5000)[::10])


@every_norm
@pytest.mark.parametrize("shape", [(1, 1, 5, 1), (1, 2, 2, 1), (1, 3, 3, 1), (1, 6, 7, 2), (1, 30, 4, 3)])
def test_squares_fit_into_the_image(norm, shape):
    sides = Square(eps=0.1, norm=norm, queries=500, p_init=1.0)._sides(shape, 1, 500)
    assert sides.shape == (499,) and sides.dtype == "int32"
    assert sides.min() >= 1 and sides.max() <= min(shape[1:3])
    assert (np.diff(sides) <= 0).all()


@every_norm
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (3, 2, 1)])
def test_tiny_images_are_attacked_too(linear, norm, shape):
    size = int(np.prod(shape))
    model = linear(rng.normal(size=(size, 2)).astype("float32"), shape, bias=[100.0, 0.0])
    images = np.full((4, *shape), 0.5, "float32")
    found = Square(eps=0.2, norm=norm, queries=30)(model, images, np.zeros(4, "int32"))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(ThreatModel(norm).distance(found, images), 0.2, rtol=1e-5)


def paper_bump(side):
    """Andriushchenko et al. 2020: two hills of nested squares, one square at a time."""
    whole = np.zeros((side, side))
    for top, height, sign in ((0, side // 2, 1), (side // 2, side - side // 2, -1)):
        hill = np.zeros((height, side))
        for radius in range(side // 2 + 1):
            for row, column in np.ndindex(height, side):
                if max(abs(row - height // 2), abs(column - side // 2)) <= radius:
                    hill[row, column] += 1 / (radius + 1) ** 2
        if height:
            whole[top : top + height] = sign * hill / np.linalg.norm(hill)
    return whole / np.linalg.norm(whole)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 9, 11])
def test_a_bump_is_two_hills_of_opposite_sign(side):
    found = np.asarray(bump(side, 11))
    np.testing.assert_allclose(found[:side, :side], paper_bump(side), atol=1e-6)
    assert not found[side:].any() and not found[:, side:].any()


def places(draw, shape, side):
    """Two corners of windows, from four numbers in (0, 1)."""
    lengths = [shape[0] - side + 1, shape[1] - side + 1] * 2
    row, column, other_row, other_column = (int(u * n) for u, n in zip(draw[:4], lengths, strict=True))
    return (
        (slice(row, row + side), slice(column, column + side)),
        (slice(other_row, other_row + side), slice(other_column, other_column + side)),
    )


@pytest.mark.parametrize("side", [2, 3, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_l2_proposal_is_the_papers(side, channels):
    """Algorithm 3 in float64 on one image after the other, from the same draws."""
    eps, shape = 0.6, (7, 6, channels)
    random = np.random.default_rng(side)
    images = random.uniform(size=(20, *shape)).astype("float32")
    current = images + random.normal(size=images.shape)
    current = np.asarray(ThreatModel("l2", eps).project(current.astype("float32"), images))
    draws = random.uniform(size=(20, L2Proposals.draws(channels))).astype("float32")
    found = L2Proposals(ThreatModel("l2", np.float32(eps)), images)(current, np.int32(side), draws)
    for image, start, draw, result in zip(images, current, draws, np.asarray(found), strict=True):
        delta = start.astype("float64") - image
        first, second = places(draw, shape, side)
        hill = paper_bump(side) if draw[4] > 0.5 else paper_bump(side).T
        unused = max(eps**2 - (delta**2).sum(), 0)
        moved = delta.copy()
        moved[second] = 0
        for channel in range(channels):
            old = delta[first][..., channel]
            kept = moved[..., channel].copy()
            outside = delta[..., channel].copy()
            outside[first] = outside[second] = 0
            both = (delta[..., channel] ** 2).sum() - (outside**2).sum()
            new = np.sign(draw[5 + channel] - 0.5) * hill + old / np.linalg.norm(old)
            kept[first] = new / np.linalg.norm(new) * np.sqrt(both + unused / channels)
            moved[..., channel] = kept
        np.testing.assert_allclose(np.linalg.norm(moved), eps, rtol=1e-6)
        np.testing.assert_allclose(result, np.clip(image + moved, 0, 1), atol=2e-6)


def test_a_linf_proposal_is_a_square_at_an_end_of_the_ball():
    shape, side = (7, 6, 3), 4
    random = np.random.default_rng(0)
    images = random.uniform(size=(20, *shape)).astype("float32")
    draws = random.uniform(size=(20, LinfProposals.draws(3))).astype("float32")
    found = LinfProposals(ThreatModel("linf", 0.1), images)(images, np.int32(side), draws)
    for image, draw, result in zip(images, draws, np.asarray(found), strict=True):
        window, _ = places(np.r_[draw[:2], 0, 0], shape, side)
        expected = image.copy()
        expected[window] += np.where(draw[2:] > 0.5, 0.1, -0.1)
        np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=1e-6)


@every_norm
def test_windows_lie_everywhere(norm):
    images = np.full((500, 6, 5, 1), 0.5, "float32")
    proposals = PROPOSALS[norm](ThreatModel(norm, 0.1), images)
    draw = Noise((1, 2)).uniform((500, proposals.draws(1)))
    changed = np.asarray(proposals(images, np.int32(3), draw))[..., 0] != 0.5
    corners = {
        (int(rows.argmax()), int(columns.argmax()))
        for rows, columns in zip(changed.any(axis=2), changed.any(axis=1), strict=True)
    }
    assert corners == set(np.ndindex(4, 3))
    assert (changed.sum(axis=(1, 2)) == 9).all()


def test_every_pixel_can_be_reached(linear):
    """A linear model is broken completely: in the end every pixel stands at its best end of the ball."""
    weights = rng.normal(size=(16, 2)).astype("float32")
    images = np.full((4, 4, 4, 1), 0.5, "float32")
    model = linear(weights, (4, 4, 1), bias=[100.0, 0.0])  # too far to succeed, so that the search goes on
    found = Square(eps=0.2, queries=1500)(model, images, np.zeros(4, "int32"))
    best = 0.5 + 0.2 * np.sign(weights[:, 1] - weights[:, 0]).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(found, np.broadcast_to(best, found.shape), atol=1e-6)


def test_the_l2_search_comes_near_the_best_direction(linear):
    wave = np.sin(np.arange(8) * np.pi / 4)
    best = np.outer(wave, wave).ravel()
    weights = np.stack([0 * best, best], axis=1).astype("float32")
    images = np.full((4, 8, 8, 1), 0.5, "float32")
    model = linear(weights, (8, 8, 1), bias=[100.0, 0.0])
    start, found = (
        Square(eps=0.2, norm="l2", queries=queries)(model, images, np.zeros(4, "int32"))
        for queries in (1, 1500)
    )
    delta = (found - images).reshape(4, -1)
    cosine = delta @ best / np.linalg.norm(delta, axis=1) / np.linalg.norm(best)
    assert ((start - images).reshape(4, -1) @ best).max() < 0.5 * 0.2 * np.linalg.norm(best)
    assert cosine.min() > 0.7


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


@pytest.mark.parametrize("eps", [0.4, 0.8])
def test_in_l2_it_finds_much_of_what_exists_and_nothing_else(digits_classifier, digits, eps):
    """The distance to a hyperplane is known; the pixel bounds can only make it longer."""
    images, labels = digits[0][:100], digits[1][:100]
    kernel, bias = digits_classifier.layers[-1].get_weights()
    scores = images.reshape(100, -1) @ kernel + bias
    slope = np.linalg.norm(kernel[None] - kernel.T[labels][:, :, None], axis=1)
    distance = (scores[np.arange(100), labels][:, None] - scores) / np.maximum(slope, 1e-9)
    distance[np.arange(100), labels] = np.inf
    breakable = distance.min(axis=1) < eps
    found = Square(eps=eps, norm="l2", queries=1000)(digits_classifier, images, labels)
    fooled = classify(digits_classifier, found) != labels
    assert not (fooled & ~breakable).any()
    assert breakable.sum() > 5 and fooled.sum() >= 0.6 * breakable.sum()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_more_queries_never_lose_a_success(digits_classifier, digits, norm, eps):
    images, labels = digits[0][:100], digits[1][:100]
    few, many = (
        classify(digits_classifier, attack(digits_classifier, images, labels)) != labels
        for attack in (Square(eps=eps, norm=norm, queries=queries, p_init=0.3) for queries in (1, 500))
    )
    assert not (few & ~many).any() and many.sum() > few.sum()
