from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_robust.errors import InputError
from keras_robust.validation import check_images, check_labels, check_logits

GOOD = np.full((2, 4, 4, 3), 0.5, np.float32)


def with_value(value):
    images = GOOD.copy()
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floating_images_become_float32(dtype):
    checked = check_images(GOOD.astype(dtype))
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, GOOD)


def test_float32_images_are_not_copied():
    assert check_images(GOOD) is GOOD


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_are_accepted(dtype):
    import tensorflow as tf

    checked = check_images(tf.cast(GOOD, dtype))
    assert isinstance(checked, np.ndarray) and checked.dtype == np.float32
    assert check_labels(tf.constant([0, 2], tf.int64), 3).dtype == np.int32
    assert check_logits(tf.constant([[1.0, -3.0]])).dtype == np.float32


def test_the_ends_of_the_range_are_valid():
    check_images(np.array([0.0, 1.0], np.float32).reshape(1, 1, 2, 1))


@given(hnp.arrays(np.float32, (1, 2, 2, 1), elements=st.floats(-2, 3, width=32) | st.floats(width=32)))
def test_exactly_the_images_in_the_unit_range_pass(images):
    valid = all(0 <= value <= 1 for value in images.ravel().tolist())
    if valid:
        check_images(images)
    else:
        with pytest.raises(InputError):
            check_images(images)


@pytest.mark.parametrize(
    ("images", "shape", "words"),
    [
        ((GOOD * 255).astype(np.uint8), None, ["uint8", "[0, 1]", "255"]),
        (GOOD.astype(np.int64), None, ["int64", "[0, 1]"]),
        (GOOD > 0, None, ["bool"]),
        (GOOD * 400, None, ["200", "[0, 1]"]),
        (GOOD * 510, None, ["255", "Divide by 255"]),
        (with_value(-0.5), None, ["-0.5", "[-1, 1]"]),
        (with_value(np.nan), None, ["NaN"]),
        (with_value(np.inf), None, ["infinity"]),
        (with_value(-np.inf), None, ["infinity"]),
        (GOOD[0], None, ["(4, 4, 3)", "(N, any, any, any)"]),
        (GOOD[..., 0], (4, 4, 1), ["(2, 4, 4)", "(N, 4, 4, 1)"]),
        (GOOD, (4, 4, 1), ["(2, 4, 4, 3)", "(N, 4, 4, 1)"]),
        (GOOD, (8, 8, 3), ["(2, 4, 4, 3)", "(N, 8, 8, 3)"]),
        (GOOD, (None, None, 1), ["(N, any, any, 1)"]),
        (GOOD[:0], None, ["no images"]),
        ([[[[0.1]]], [[[0.1], [0.2]]]], None, ["list"]),
        ("mnist", None, ["()"]),
    ],
)
def test_bad_images_say_what_was_received_and_what_is_valid(images, shape, words):
    with pytest.raises(InputError) as error:
        check_images(images, shape)
    for word in words:
        assert word in str(error.value)


def test_free_sizes_match_any_image():
    check_images(GOOD, (None, None, 3))


def test_a_flat_shape_serves_points():
    assert check_images(np.array([[0.2, 0.4]]), (2,)).shape == (1, 2)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integer_labels_become_int32(dtype):
    checked = check_labels(np.array([0, 9], dtype), 10, length=2)
    assert checked.dtype == np.int32 and checked.tolist() == [0, 9]


@pytest.mark.parametrize(
    ("labels", "length", "words"),
    [
        (np.eye(10)[[1, 2]], None, ["(2, 10)", "argmax"]),
        (np.array([[1], [2]]), None, ["(2, 1)", "reshape"]),
        (np.array(3), None, ["()", "(N,)"]),
        (np.array([1.0, 2.0]), None, ["float64", "integers"]),
        (np.array([True, False]), None, ["bool"]),
        (np.array([0, 10]), None, ["0 to 9", "from 0 to 10"]),
        (np.array([-1, 3]), None, ["0 to 9", "from -1 to 3"]),
        (np.array([5, 12], np.uint8), None, ["0 to 9", "from 5 to 12"]),
        (np.array([1, 2, 3]), 2, ["3 labels", "2 images"]),
    ],
)
def test_bad_labels_say_what_was_received_and_what_is_valid(labels, length, words):
    with pytest.raises(InputError) as error:
        check_labels(labels, 10, length)
    for word in words:
        assert word in str(error.value)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(-30, 30)))
def test_probabilities_are_refused(logits):
    with pytest.raises(InputError, match="probabilities where logits are expected"):
        check_logits(softmax(logits))


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((3, 10)),
        np.array([[0.2, 0.8], [0.3, 0.9]]),
        np.array([[1.5, -0.5], [0.5, 0.5]]),
        np.log(softmax(np.arange(6.0).reshape(2, 3))),
    ],
)
def test_logits_pass(logits):
    np.testing.assert_allclose(check_logits(logits), logits, rtol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (np.zeros((3, 1)), "(3, 1)"),
        (np.zeros((3, 4, 4, 2)), "(3, 4, 4, 2)"),
        (np.array([[np.nan, 1.0]]), "NaN"),
    ],
)
def test_outputs_that_are_no_scores_per_class_are_refused(outputs, words):
    with pytest.raises(InputError) as error:
        check_logits(outputs)
    assert words in str(error.value)


def test_nan_in_bfloat16_is_seen():
    import tensorflow as tf

    with pytest.raises(InputError, match="NaN"):
        check_images(tf.cast(with_value(np.nan), tf.bfloat16))


def test_validation_does_not_import_tensorflow():
    code = "import sys, keras_robust.validation; sys.exit(len({'tensorflow', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
