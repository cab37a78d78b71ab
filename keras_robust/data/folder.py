"""The user's own images: a folder with one subfolder per class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np

from keras_robust.data.arrays import Arrays, concatenate, holdout
from keras_robust.data.specs import SPLITS, Dataset, datasets
from keras_robust.errors import InputError, require, unknown_name
from keras_robust.files import user_path

TEST_SHARE = 0.2
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}


@dataclass(frozen=True)
class Folder(Dataset):
    """Images under `root/<class>/`, or under `root/train/<class>/` and `root/test/<class>/`.

    Without the two subfolders, a fixed stratified fifth of the images is the test split.
    """

    root: Path = Path()
    classes: tuple[str, ...] = ()

    def at(self, reference: str) -> Folder:
        path, _, query = reference.partition("?")
        require(bool(path), "A folder dataset needs a path, as in 'folder:/path/to/images?size=32x32'.")
        root = user_path(path)
        size, channels = _options(query)
        classes = {_class_names(directory) for directory in _split_directories(root).values()}
        require(len(classes) == 1, f"train and test of {root} must hold the same classes: {sorted(classes)}.")
        (names,) = classes
        image_shape = (*(size or _size_of_first_image(root)), channels)
        return replace(self, root=root, image_shape=image_shape, num_classes=len(names), classes=names)

    def class_names(self, data_dir: str | None) -> tuple[str, ...]:
        return self.classes

    def sizes(self, data_dir: str | None) -> Mapping[str, int]:
        counts = {
            split: len(_labelled_images(place)) for split, place in _split_directories(self.root).items()
        }
        if len(counts) == 2:
            return counts
        # as scikit-learn rounds a share
        test = int(np.ceil(TEST_SHARE * counts["train"]))
        return {"train": counts["train"] - test, "test": test}

    def read(self, split: str, data_dir: str | None, download: bool) -> Arrays:
        directories = _split_directories(self.root)
        if len(directories) == 2:
            return self._read(directories[split])
        return holdout(self._read(self.root), TEST_SHARE)[SPLITS.index(split)]

    def _read(self, directory: Path) -> Arrays:
        import keras
        import tensorflow as tf

        batches = keras.utils.image_dataset_from_directory(
            directory,
            class_names=list(self.classes),
            color_mode="grayscale" if self.image_shape[-1] == 1 else "rgb",
            image_size=self.image_shape[:2],
            interpolation="area",
            batch_size=256,
            shuffle=False,
            verbose=False,
        )
        stored = batches.map(lambda images, labels: (tf.cast(tf.round(images), tf.uint8), labels))
        try:
            return concatenate(stored.as_numpy_iterator())
        except tf.errors.OpError as error:
            damaged = ", ".join(str(path) for path in _labelled_images(directory) if not _decodes(path))
            damaged = damaged or str(directory)
            raise InputError(f"Not an image that can be read: {damaged}.") from error


def _options(query: str) -> tuple[tuple[int, int] | None, int]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    size, channels = options.pop("size", None), options.pop("channels", "3")
    for name in options:
        raise unknown_name("folder option", name, ("size", "channels"))
    require(channels in ("1", "3"), f"channels must be 1 or 3. Received: {channels!r}.")
    return None if size is None else _height_and_width(size), int(channels)


def _height_and_width(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if match is None:
        raise InputError(f"size must be HEIGHTxWIDTH in pixels, as in 32x32. Received: {size!r}.")
    return int(match[1]), int(match[2])


def _split_directories(root: Path) -> dict[str, Path]:
    require(root.is_dir(), f"No such folder: {root}.")
    if all((root / split).is_dir() for split in SPLITS):
        return {split: root / split for split in SPLITS}
    named = sorted(split for split in _SPLIT_NAMES if (root / split).is_dir())
    require(
        not named,
        f"{root} must hold a subfolder per class, or {' and '.join(SPLITS)} with a subfolder per class each. "
        f"Received: {', '.join(named)}.",
    )
    return {"train": root}


_SPLIT_NAMES = {*SPLITS, "val", "valid", "validation"}


def _class_names(directory: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _class_directories(directory))
    empty = [name for name in names if not _images(directory / name)]
    require(
        len(names) > 1 and not empty,
        f"{directory} must hold one subfolder of images ({', '.join(sorted(_SUFFIXES))}) per class, at least "
        f"two. Received: {len(names)} subfolders, without images: {', '.join(empty) or 'none'}.",
    )
    return names


def _class_directories(directory: Path) -> list[Path]:
    """Not the hidden ones, which other programs leave."""
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _labelled_images(directory: Path) -> list[Path]:
    return [path for entry in _class_directories(directory) for path in _images(entry)]


def _images(directory: Path) -> list[Path]:
    found = (path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return sorted(path for path in found if not path.is_dir())


def _decodes(path: Path) -> bool:
    import tensorflow as tf

    try:
        tf.io.decode_image(tf.io.read_file(str(path)), expand_animations=False)
    except tf.errors.OpError:  # no image, or none that can be opened
        return False
    return True


def _size_of_first_image(root: Path) -> tuple[int, int]:
    import tensorflow as tf

    first = _labelled_images(next(iter(_split_directories(root).values())))[0]
    require(_decodes(first), f"Not an image that can be read: {first}.")
    image = tf.io.decode_image(tf.io.read_file(str(first)), expand_animations=False)
    return int(image.shape[0]), int(image.shape[1])


datasets.register("folder")(Folder("the user's folder of images", image_shape=(), num_classes=0))
