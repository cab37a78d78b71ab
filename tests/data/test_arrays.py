from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_robust.data.arrays import Arrays, check, holdout, subset
from keras_robust.errors import InputError


def numbered(labels) -> Arrays:
    """Examples whose image is their own number, so that they can be recognised."""
    labels = np.asarray(labels, np.int32)
    return Arrays((np.arange(len(labels), dtype=np.float32) / 1000).reshape(-1, 1, 1, 1), labels)


class_sizes = st.lists(st.integers(5, 40), min_size=2, max_size=5)


@given(sizes=class_sizes, share=st.floats(0.3, 0.7), seed=st.integers(0, 2**31 - 1))
def test_holdout_is_disjoint_complete_and_stratified(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    arrays = numbered(labels)
    train, held_out = holdout(arrays, share, seed)

    together = np.concatenate([train.images, held_out.images]).ravel()
    np.testing.assert_array_equal(np.sort(together), arrays.images.ravel())
    for part in (train, held_out):
        numbers = np.rint(part.images.ravel() * 1000).astype(int)
        assert np.all(np.diff(numbers) > 0)
        np.testing.assert_array_equal(part.labels, labels[numbers])
    expected = np.array(sizes) * len(held_out.labels) / len(labels)
    assert np.all(np.abs(np.bincount(held_out.labels, minlength=len(sizes)) - expected) <= 1)


def test_holdout_by_count_and_seed():
    arrays = numbered(np.arange(100) % 4)
    first, again, other = (holdout(arrays, 20, seed)[1] for seed in (1, 1, 2))
    assert np.bincount(first.labels).tolist() == [5, 5, 5, 5]
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("size", [0, 3, 100, 1.5, 98])
def test_holdout_refuses_sizes_that_cannot_be_stratified(size):
    with pytest.raises(InputError, match=f"Cannot hold out {size} of 100"):
        holdout(numbered(np.arange(100) % 4), size)


@given(size=st.integers(1, 200), data=st.data(), seed=st.integers(0, 1000))
def test_subset_is_a_sorted_draw_without_replacement(size, data, seed):
    examples = data.draw(st.integers(1, size))
    indices = subset(size, examples, seed)
    assert len(indices) == examples
    assert np.all(np.diff(indices) > 0)
    assert indices.min() >= 0 and indices.max() < size
    np.testing.assert_array_equal(indices, subset(size, examples, seed))


def test_subset_draws_uniformly():
    counts = np.zeros(10)
    for seed in range(2000):
        counts[subset(10, 3, seed)] += 1
    # 5 standard deviations of a binomial count
    assert np.all(np.abs(counts - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7))


def test_subset_without_seed_or_size():
    assert subset(5, 2).tolist() == [0, 1]
    assert subset(3).tolist() == [0, 1, 2]
    for examples in (0, 6):
        with pytest.raises(InputError, match=rf"1\.\.5. Received: {examples}"):
            subset(5, examples)


def test_as_float_scales_every_byte_exactly():
    every = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    arrays = Arrays(every, np.zeros(256, np.int32)).as_float()
    np.testing.assert_array_equal(arrays.images.ravel(), (np.arange(256) / 255).astype(np.float32))
    own = arrays.as_float()
    np.testing.assert_array_equal(own.images, arrays.images)
    own.images[0], own.labels[0] = 1, 9
    assert arrays.images[0] == 0 and arrays.labels[0] == 0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 1, 1, 1), np.float32), np.zeros(3, np.int32), "2 images"),
        (np.zeros((2, 1, 1, 1), np.float32), np.zeros((2, 10), np.int32), r"\(2, 10\)"),
        (np.zeros((2, 1, 1, 1), np.float32), np.zeros(2, np.float32), "float32"),
        (np.zeros((2, 1, 1, 1), np.float64), np.zeros(2, np.int32), "float64"),
        (np.full((2, 1, 1, 1), 255, np.float32), np.zeros(2, np.int32), "255"),
        (np.full((2, 1, 1, 1), np.nan, np.float32), np.zeros(2, np.int32), "nan"),
        (np.zeros((0, 1, 1, 1), np.float32), np.zeros(0, np.int32), "at least one"),
    ],
)
def test_check_refuses(images, labels, message):
    with pytest.raises(InputError, match=message):
        check(Arrays(images, labels))
