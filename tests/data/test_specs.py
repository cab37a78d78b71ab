from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_robust import data
from keras_robust.data.tfds_sets import Prepared
from keras_robust.errors import InputError

NAMED = [name for name in data.datasets if name != "folder"]
PREPARED = [name for name in NAMED if isinstance(data.datasets[name], Prepared)]
EMBEDDED = [name for name in NAMED if name not in PREPARED]


def check_promises(name: str, arrays: data.Arrays) -> None:
    info = data.info(name)
    assert arrays.images.shape == (len(arrays.labels), *info.image_shape)
    assert arrays.labels.dtype == np.int32
    assert arrays.labels.min() >= 0 and arrays.labels.max() < info.num_classes
    if arrays.images.dtype != np.uint8:
        assert arrays.images.dtype == np.float32
        assert arrays.images.min() >= 0 and arrays.images.max() <= 1


def test_names_are_known_without_heavy_imports():
    code = (
        "import sys; from keras_robust import data;"
        "[data.info(name) for name in data.datasets if name != 'folder'];"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'keras', 'keras_cv', 'sklearn'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", NAMED)
def test_info_is_complete(name, tmp_path):
    info = data.info(name, data_dir=tmp_path)
    assert info.name == name
    assert info.source
    assert len(set(info.class_names)) == info.num_classes
    if name in PREPARED:
        assert not info.splits


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_datasets(name, split):
    arrays, again = (data.load(name, split) for _ in range(2))
    check_promises(name, arrays)
    assert len(arrays.labels) == data.info(name).splits[split]
    assert set(arrays.labels) == set(range(data.info(name).num_classes))
    np.testing.assert_array_equal(arrays.images, again.images)


def test_digits_are_all_of_scikit_learns():
    from sklearn.datasets import load_digits

    parts = [data.load("digits", split) for split in ("train", "test")]
    ours = np.concatenate([part.images.reshape(-1, 64) * 16 for part in parts])
    theirs = load_digits().data
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_two_moons_keep_their_shape():
    train, test = (data.load("two_moons", split) for split in ("train", "test"))
    assert not np.array_equal(train.images, test.images)
    # The upper moon is a half circle of radius 1 about (0, 0), scaled by 1/4.
    centre = (np.array([0.0, 0.0]) - [0.5, 0.25]) / 4 + 0.5
    radii = np.linalg.norm(train.images[train.labels == 0] - centre, axis=1)
    assert abs(radii.mean() - 0.25) < 0.005
    assert abs(radii.std() - 0.025) < 0.005


@pytest.mark.parametrize("name", PREPARED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_prepared_datasets_mocked(name, split, tmp_path):
    with tfds.testing.mock_data(num_examples=7):
        raw = data.load(name, split, data_dir=tmp_path, raw=True)
        scaled = data.load(name, split, data_dir=tmp_path)
    check_promises(name, raw)
    check_promises(name, scaled)
    assert raw.images.dtype == np.uint8 and len(raw.labels) == 7
    np.testing.assert_array_equal(scaled.images, raw.images.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("name", PREPARED)
def test_absent_data_tells_where_it_was_sought(name, tmp_path):
    with pytest.raises(InputError) as raised:
        data.load(name, data_dir=tmp_path / "nowhere")
    for part in (name, str(tmp_path / "nowhere"), "TFDS_DATA_DIR", "download=True"):
        assert part in str(raised.value)


def test_data_directory_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "chosen"))
    with pytest.raises(InputError, match="chosen"):
        data.load("svhn_cropped")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_real_datasets(name):
    splits = data.info(name).splits
    if "test" not in splits:
        pytest.skip(f"no prepared {name} in TFDS_DATA_DIR")
    raw = data.load(name, "test", raw=True)
    check_promises(name, raw)
    assert len(raw.labels) == splits["test"]
    assert len(np.unique(raw.labels)) == data.info(name).num_classes

    drawn = data.load(name, "test", examples=50, seed=3)
    indices = data.subset(splits["test"], 50, seed=3)
    np.testing.assert_array_equal(drawn.labels, raw.labels[indices])
    np.testing.assert_array_equal(drawn.images, raw.take(indices).as_float().images)


def test_mnist_is_in_the_order_on_disk():
    if "test" not in data.info("mnist").splits:
        pytest.skip("no prepared mnist in TFDS_DATA_DIR")
    reference = tfds.builder("mnist", data_dir=os.environ.get("TFDS_DATA_DIR")).as_dataset(split="test[:20]")
    labels = [int(example["label"]) for example in tfds.as_numpy(reference)]
    assert data.load("mnist", "test", examples=20).labels.tolist() == labels


def test_examples():
    whole = data.load("digits", "test")
    np.testing.assert_array_equal(data.load("digits", "test", examples=9).images, whole.images[:9])
    drawn = data.load("digits", "test", examples=9, seed=5)
    np.testing.assert_array_equal(drawn.images, whole.images[data.subset(360, 9, 5)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("minst",), "Unknown dataset: 'minst'. Did you mean 'mnist'"),
        (("digits", "val"), "Unknown split: 'val'.*Valid: test, train"),
        (("digits", "test", 361), r"1\.\.360. Received: 361"),
        (("digits:/tmp",), "takes nothing after its name. Received: '/tmp'"),
        (("folder",), "needs a path"),
    ],
)
def test_load_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        data.load(*arguments)


def tiny_imagenet(root) -> dict[str, dict[str, int]]:
    """A Tiny ImageNet of three classes; returns the grey of each image by split and class."""
    greys: dict[str, dict[str, int]] = {"train": {}, "test": {}}
    base = root / "tiny-imagenet-200"
    (base / "val" / "images").mkdir(parents=True)
    classes = ["n03", "n01", "n02"]
    (base / "wnids.txt").write_text("\n".join(classes))
    lines = []
    for number, name in enumerate(classes):
        folder = base / "train" / name / "images"
        folder.mkdir(parents=True)
        greys["train"][name], greys["test"][name] = 10 + number, 100 + number
        write_jpeg(folder / f"{name}_0.JPEG", 10 + number)
        write_jpeg(base / "val" / "images" / f"val_{number}.JPEG", 100 + number)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t32\t44\t62")
    (base / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return greys


def write_jpeg(path, grey: int) -> None:
    image = tf.fill((64, 64, 1), tf.constant(grey, tf.uint8))  # some of the real ones are grey, too
    path.write_bytes(tf.io.encode_jpeg(image, quality=100).numpy())


@pytest.mark.parametrize("zipped", [False, True])
def test_tiny_imagenet_is_built_from_the_users_copy(zipped, tmp_path, monkeypatch):
    greys = tiny_imagenet(tmp_path)
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    base = tmp_path / "tiny-imagenet-200"
    if zipped:
        with zipfile.ZipFile(manual / "tiny-imagenet-200.zip", "w") as archive:
            for file in base.rglob("*"):
                archive.write(file, file.relative_to(tmp_path))
    else:
        base.rename(manual / base.name)

    from keras_robust.data import tiny_imagenet as module

    real = tfds.features.ClassLabel
    monkeypatch.setattr(module.tfds.features, "ClassLabel", lambda num_classes: real(num_classes=3))
    for split in ("train", "test"):
        arrays = data.load("tiny_imagenet", split, data_dir=tmp_path / "data", download=True, raw=True)
        info = data.info("tiny_imagenet", data_dir=tmp_path / "data")
        assert info.class_names == ("n01", "n02", "n03")
        assert info.splits == {"train": 3, "test": 3}
        seen = {
            info.class_names[label]: int(image.mean().round())
            for image, label in zip(arrays.images, arrays.labels, strict=True)
        }
        assert seen == greys[split]


class OtherFailure(Exception):
    """TFDS has several, with no base of their own."""


@pytest.mark.parametrize("kind", [ConnectionError, OtherFailure])
def test_a_failed_download_tells_why(tmp_path, monkeypatch, kind):
    def fail(self):
        raise kind("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(InputError, match=r"Cannot prepare 'stl10' in .*no route to host"):
        data.load("stl10", data_dir=tmp_path, download=True)


def test_tiny_imagenet_tells_what_to_fetch(tmp_path):
    with pytest.raises(InputError, match=r"tiny-imagenet-200\.zip.*downloads/manual"):
        data.load("tiny_imagenet", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"(?s)Cannot prepare.*downloads/manual.*tiny-imagenet-200\.zip"):
        data.load("tiny_imagenet", data_dir=tmp_path, download=True)
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "other.zip").touch()
    with pytest.raises(InputError, match=r"neither .*tiny-imagenet-200\.zip nor the folder"):
        data.load("tiny_imagenet", data_dir=tmp_path, download=True)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_stored_split_is_read_once_and_given_out_to_be_changed(name):
    if not data.info(name).splits:
        pytest.skip(f"{name} is absent")
    first = data.load(name, "test", raw=True)
    assert data.load(name, "test", raw=True).images is first.images
    for array in first:
        assert not array.flags.writeable, "it is everybody's"
    images, labels = data.load(name, "test")
    images[0], labels[0] = 0, labels[0] + 1
    assert (data.load(name, "test").labels[0] != labels[0]) and first.images[0].any()
