from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import data
from keras_robust.errors import InputError


def write(path, value: int, height: int = 6, width: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((height, width, 3), value, np.uint8)
    image[0, 0] = 0  # a mark that tells orientation
    path.write_bytes(tf.io.encode_png(image).numpy())


@pytest.fixture
def flat(tmp_path):
    for number in range(10):
        write(tmp_path / "cat" / f"{number}.png", 10 + number)
        write(tmp_path / "dog" / f"{number}.png", 100 + number)
    return tmp_path


def brightest(arrays: data.Arrays) -> list[int]:
    return [int(image.max()) for image in arrays.images]


def test_a_flat_folder_is_split_once_and_for_all(flat):
    name = f"folder:{flat}"
    info = data.info(name)
    assert (info.image_shape, info.num_classes, info.class_names) == ((6, 4, 3), 2, ("cat", "dog"))
    train, test = (data.load(name, split, raw=True) for split in ("train", "test"))
    assert info.splits == {"train": len(train.labels), "test": len(test.labels)} == {"train": 16, "test": 4}
    assert sorted(brightest(train) + brightest(test)) == [*range(10, 20), *range(100, 110)]
    for arrays in (train, test):
        assert arrays.images.dtype == np.uint8
        assert arrays.labels.tolist() == [int(value >= 100) for value in brightest(arrays)]
        assert np.all(arrays.images[:, 0, 0] == 0) and np.all(arrays.images[:, 1:] > 0)
    assert test.labels.tolist().count(0) == 2


def test_hidden_directories_and_images_of_no_class_are_passed_over(flat):
    write(flat / ".thumbnails" / "0.png", 1)
    (flat / ".ipynb_checkpoints").mkdir()
    write(flat / "README.png", 1, height=9)
    info = data.info(f"folder:{flat}")
    assert (info.image_shape, info.class_names) == ((6, 4, 3), ("cat", "dog"))
    assert info.splits == {"train": 16, "test": 4}
    assert len(data.load(f"folder:{flat}", "train").labels) == 16


def test_train_and_test_subfolders_are_used(tmp_path):
    for split, value in (("train", 50), ("test", 200)):
        for name in ("cat", "dog"):
            write(tmp_path / split / name / "a.png", value)
    for split, value in (("train", 50), ("test", 200)):
        arrays = data.load(f"folder:{tmp_path}", split)
        assert arrays.labels.tolist() == [0, 1]
        assert arrays.images.dtype == np.float32
        np.testing.assert_allclose(arrays.images.max(axis=(1, 2, 3)), value / 255)
    assert data.info(f"folder:{tmp_path}").splits == {"train": 2, "test": 2}


def test_size_and_channels(flat):
    name = f"folder:{flat}?size=3x2&channels=1"
    assert data.info(name).image_shape == (3, 2, 1)
    arrays = data.load(name, raw=True)
    assert arrays.images.shape == (16, 3, 2, 1)
    # 2x2 areas: the one with the black mark keeps three quarters of the brightness
    values = arrays.images[:, 1, 1, 0].astype(float)
    np.testing.assert_allclose(arrays.images[:, 0, 0, 0], 0.75 * values, atol=1)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?size=32", "HEIGHTxWIDTH.*Received: '32'"),
        ("?size=0x4", "HEIGHTxWIDTH.*Received: '0x4'"),
        ("?channels=2", "channels must be 1 or 3. Received: '2'"),
        ("?sise=3x3", "Unknown folder option: 'sise'. Did you mean 'size'"),
    ],
)
def test_options_are_checked(flat, query, message):
    with pytest.raises(InputError, match=message):
        data.load(f"folder:{flat}{query}")


def test_folders_that_cannot_be_used(flat, tmp_path_factory):
    with pytest.raises(InputError, match="No such folder: /nowhere/at/all"):
        data.info("folder:/nowhere/at/all")
    with pytest.raises(InputError, match=r"one subfolder of images.*Received: 0 subfolders"):
        data.info(f"folder:{tmp_path_factory.mktemp('empty')}")
    (flat / "eel").mkdir()
    with pytest.raises(InputError, match="without images: eel"):
        data.info(f"folder:{flat}")

    torn = tmp_path_factory.mktemp("torn")
    for path in ("train/cat", "train/dog", "test/cat", "test/eel"):
        write(torn / path / "a.png", 9)
    with pytest.raises(InputError, match=r"same classes.*dog.*eel"):
        data.info(f"folder:{torn}")

    half = tmp_path_factory.mktemp("half")
    for path in ("train/cat", "train/dog", "val/cat", "val/dog"):
        write(half / path / "a.png", 9)
    with pytest.raises(InputError, match=r"train and test with a subfolder per class.*Received: train, val"):
        data.info(f"folder:{half}")


def scribbled(path):
    path.write_bytes(b"no image")


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere.png")


@pytest.mark.parametrize("damage", [scribbled, dangling])
@pytest.mark.parametrize("name", ["0.png", "9.png"])
def test_an_image_that_cannot_be_read_is_named(flat, name, damage):
    damage(flat / "cat" / name)
    with pytest.raises(InputError, match=rf"Not an image that can be read: .*cat/{name}"):
        data.load(f"folder:{flat}", "train")


def test_a_directory_with_an_image_s_ending_is_none(flat):
    (flat / "cat" / "0.png").rename(flat / "cat" / "10.png")
    (flat / "cat" / "0.png").mkdir()
    assert data.info(f"folder:{flat}").image_shape == (6, 4, 3)
