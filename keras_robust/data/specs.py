"""Datasets by name: the registry, what is known of each, and `load`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from keras_robust.data.arrays import Arrays, subset
from keras_robust.errors import require, require_choice
from keras_robust.files import user_path
from keras_robust.registry import Registry

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Dataset(ABC):
    """What a registered name stands for.

    Attributes:
        source: where the data comes from.
        image_shape: `(H, W, C)`, or `(D,)` for points; `()` until a folder's path is known.
        num_classes: number of classes; 0 until a folder's path is known.
    """

    source: str
    image_shape: tuple[int, ...]
    num_classes: int

    def at(self, reference: str) -> Dataset:
        """The dataset meant by what the user wrote after `name:`."""
        require(not reference, f"This dataset takes nothing after its name. Received: {reference!r}.")
        return self

    @abstractmethod
    def class_names(self, data_dir: str | None) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @abstractmethod
    def sizes(self, data_dir: str | None) -> Mapping[str, int]:
        """Examples per split, for the splits whose size is known."""

    @abstractmethod
    def read(self, split: str, data_dir: str | None, download: bool) -> Arrays:
        """All examples of a split, images as stored."""


datasets: Registry[Dataset] = Registry("dataset")


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without reading its images.

    Attributes:
        name: the name it was asked for by.
        image_shape: `(H, W, C)`, or `(D,)` for points.
        num_classes: number of classes.
        source: where the data comes from.
        class_names: names in the order of the labels; looked up at first use.
        splits: examples per split, of the prepared data; looked up at first use, without an entry where the
            data is absent.
    """

    name: str
    image_shape: tuple[int, ...]
    num_classes: int
    source: str
    _dataset: Dataset = field(repr=False, compare=False)
    _data_dir: str | None = field(repr=False, compare=False)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return self._dataset.class_names(self._data_dir)

    @cached_property
    def splits(self) -> Mapping[str, int]:
        return self._dataset.sizes(self._data_dir)


def info(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """What is known of a dataset without reading its images.

    Args:
        name: a name in `datasets`, or `folder:/path`.
        data_dir: directory of prepared TensorFlow Datasets; default: TFDS_DATA_DIR, else the default of
            TensorFlow Datasets.

    Raises:
        InputError: unknown name, or a folder that cannot be used.

    >>> info("digits").image_shape
    (8, 8, 1)
    """
    dataset = _resolve(name)
    return DatasetInfo(
        name, dataset.image_shape, dataset.num_classes, dataset.source, dataset, _directory(data_dir)
    )


def load(
    name: str,
    split: str = "train",
    examples: int | None = None,
    seed: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    raw: bool = False,
) -> Arrays:
    """Read a split of a dataset into memory.

    Args:
        name: a name in `datasets`, or `folder:/path`.
        split: "train" or "test".
        examples: number of examples; None: all. `subset` tells which.
        seed: seed of a random draw of `examples`; None: the first ones.
        data_dir: directory of prepared TensorFlow Datasets; default: TFDS_DATA_DIR, else the default of
            TensorFlow Datasets.
        download: let TensorFlow Datasets download and prepare what is absent.
        raw: leave images as stored, uint8 in 0..255 for most datasets, a quarter of the memory; `pipeline`
            and `batches` take them so and scale batch by batch. They may be read-only.

    Returns:
        `Arrays`: images float32 in [0, 1] (unless `raw`), labels int32.

    Raises:
        InputError: unknown name or split, `examples` out of range, or data that is not there.

    >>> images, labels = load("digits", "test", examples=100, seed=0)
    >>> images.shape
    (100, 8, 8, 1)
    """
    dataset = _resolve(name)
    require_choice("split", split, SPLITS)
    arrays = dataset.read(split, _directory(data_dir), download)
    if examples is not None:
        arrays = arrays.take(subset(len(arrays.labels), examples, seed))
    return arrays if raw else arrays.as_float()


def _resolve(name: str) -> Dataset:
    key, _, reference = name.partition(":")
    return datasets[key].at(reference)


def _directory(data_dir: str | os.PathLike[str] | None) -> str | None:
    # TensorFlow Datasets reads the variable only when it is imported.
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR")
    return str(user_path(chosen)) if chosen else None
