from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data.augmentation import augmentations, build
from keras_robust.errors import InputError

SHAPE = (16, 12, 3)
SEED = (3, 4)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).random((24, 4, 3, 3)).astype(np.float32)
    return tf.image.resize(coarse, SHAPE[:2]).numpy()


@pytest.mark.parametrize("name", augmentations)
def test_augmentations_are_functions_of_images_and_seed(name, images):
    """Every registered augmentation: shape, type, range, repeatability, and draws of its own per image."""
    augment = tf.function(build([name], SHAPE))
    result = augment(images, tf.constant(SEED))
    assert result.shape == images.shape and result.dtype == tf.float32
    assert np.all(result >= 0) and np.all(result <= 1)
    assert not np.array_equal(result, images)

    np.testing.assert_array_equal(augment(images, tf.constant(SEED)), result)
    np.testing.assert_array_equal(tf.function(build([name], SHAPE))(images, tf.constant(SEED)), result)
    assert not np.array_equal(augment(images, tf.constant((3, 5))), result)
    assert not np.array_equal(augment(images, tf.constant((4, 4))), result)

    copies = augment(np.repeat(images[:1], 24, axis=0), tf.constant(SEED)).numpy()
    assert len(np.unique(copies.reshape(24, -1), axis=0)) > 1


@pytest.mark.parametrize("name", augmentations)
def test_augmentations_ignore_the_global_policy(name, images):
    expected = build([name], SHAPE)(images, SEED)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        result = build([name], SHAPE)(images, SEED)
    finally:
        keras.config.set_dtype_policy("float32")
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, expected)


def crops(image: np.ndarray, padding: int) -> dict[bytes, tuple[int, int]]:
    height, width = image.shape[:2]
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    return {
        padded[top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }


def test_pad_crop_takes_each_window_equally_often(images):
    windows = crops(images[0], 2)
    assert len(windows) == 25
    copies = np.repeat(images[:1], 2500, axis=0)
    result = build([{"name": "pad_crop", "padding": 2}], SHAPE)(copies, SEED).numpy()
    counts = np.zeros((5, 5))
    for image in result:
        counts[windows[image.tobytes()]] += 1
    assert np.all(np.abs(counts - 100) < 5 * np.sqrt(100))  # 5 standard deviations


def test_flip_mirrors_half_of_the_images(images):
    result = build(["flip"], SHAPE)(np.repeat(images, 40, axis=0), SEED).numpy()
    originals = np.repeat(images, 40, axis=0)
    same = np.all(result == originals, axis=(1, 2, 3))
    mirrored = np.all(result == originals[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(960)
    np.testing.assert_array_equal(
        build([{"name": "flip", "rate": 1.0}], SHAPE)(images, SEED), images[:, :, ::-1]
    )


def test_cutout_blackens_a_square():
    white = np.ones((50, *SHAPE), np.float32)
    black = build([{"name": "cutout", "size": 4}], SHAPE)(white, SEED).numpy()[..., 0] == 0
    rows, columns = black.any(axis=2).sum(axis=1), black.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(black.sum(axis=(1, 2)), rows * columns)
    assert rows.max() == columns.max() == 4
    centres = [np.average(np.nonzero(mask)[1:], axis=1) for mask in black[:, None]]
    assert abs(np.corrcoef(np.transpose(centres))[0, 1]) < 0.5


def test_rotate_keeps_the_centre_and_within_its_angle():
    """A bright spot right of the centre moves on a circle, by no more than the angle."""
    image = np.zeros((200, 33, 33, 3), np.float32)
    image[:, 16, 28] = 1.0
    result = build([{"name": "rotate", "degrees": 30}], (33, 33, 3))(image, SEED).numpy()[..., 0]
    rows, columns = np.mgrid[:33, :33] - 16
    mass = result.sum(axis=(1, 2))
    angles = np.degrees(
        np.arctan2((result * rows).sum(axis=(1, 2)) / mass, (result * columns).sum(axis=(1, 2)) / mass)
    )
    assert 25 < np.abs(angles).max() < 32
    assert angles.min() < 0 < angles.max()


def test_color_jitter_parts(images):
    off = {"name": "color_jitter", "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    np.testing.assert_allclose(build([off], SHAPE)(images, SEED), images, atol=1e-5)

    grey = np.full_like(images, 0.5)
    shifted = build([{**off, "brightness": 0.2}], SHAPE)(grey, SEED).numpy() - 0.5
    assert np.ptp(shifted, axis=(1, 2, 3)).max() < 1e-5
    assert 0.1 < np.abs(shifted).max() <= 0.2 + 1e-5

    def saturation(colours):
        return tf.image.rgb_to_hsv(colours)[..., 1].numpy()

    pale = np.broadcast_to(np.float32([0.5, 0.4, 0.4]), images.shape)
    ratio = saturation(build([{**off, "saturation": 0.3}], SHAPE)(pale, SEED)) / saturation(pale)
    assert 0.7 - 1e-3 <= ratio.min() < 0.85 and 1.15 < ratio.max() <= 1.3 + 1e-3

    red = np.broadcast_to(np.float32([0.8, 0.2, 0.2]), images.shape)
    turned = tf.image.rgb_to_hsv(build([{**off, "hue": 0.05}], SHAPE)(red, SEED))[..., 0].numpy()
    turns = (turned + 0.5) % 1 - 0.5  # red is at 0
    assert -0.05 - 1e-3 <= turns.min() < -0.025 and 0.025 < turns.max() <= 0.05 + 1e-3

    dim = 0.4 + 0.2 * images
    spread = build([{**off, "contrast": 0.3}], SHAPE)(dim, SEED).numpy().std(axis=(1, 2, 3))
    ratio = spread / dim.std(axis=(1, 2, 3))
    assert 0.7 - 1e-2 <= ratio.min() < 0.85 and 1.15 < ratio.max() <= 1.3 + 1e-2


def test_augmentations_are_applied_in_order_with_draws_of_their_own(images):
    twice = build(["pad_crop", "pad_crop"], SHAPE)(images, SEED).numpy()
    first = build(["pad_crop"], SHAPE)(images, SEED).numpy()
    assert not np.array_equal(twice, first)
    windows = [crops(image, 8) for image in images]
    shifts = [windows[i].get(first[i].tobytes()) for i in range(len(images))]
    assert all(shift is not None and max(shift) <= 12 and min(shift) >= 4 for shift in shifts)
    np.testing.assert_array_equal(build([], SHAPE)(images, SEED), images)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("padcrop", SHAPE, "Unknown augmentation: 'padcrop'. Did you mean 'pad_crop'"),
        ({"padding": 4}, SHAPE, "Unknown augmentation: None"),
        ({"name": "flip", "side": 1}, SHAPE, "Unknown option of augmentation 'flip': 'side'. Valid: rate"),
        ({"name": "pad_crop", "padding": -1}, SHAPE, "padding must be an integer >= 0. Received: -1"),
        ({"name": "pad_crop", "padding": "4"}, SHAPE, "augmentation 'pad_crop'.*padding.*'4'"),
        ({"name": "flip", "rate": 2.0}, SHAPE, "'flip' with options {'rate': 2.0}.*rate"),
        ({"name": "rand_augment", "magnitude": 2}, SHAPE, "'rand_augment'.*magnitude"),
        ({"name": "color_jitter", "saturation": 2}, SHAPE, r"saturation must be in \[0, 1\]. Received: 2"),
        ("color_jitter", (8, 8, 1), r"color_jitter needs images of 3 channels.*\(8, 8, 1\)"),
        ("flip", (2,), r"flip needs images \(H, W, C\).*\(2,\)"),
    ],
)
def test_build_refuses(spec, shape, message):
    with pytest.raises(InputError, match=message):
        build([spec], shape)
