"""Datasets prepared by TensorFlow Datasets."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from keras_robust.data.arrays import Arrays, concatenate
from keras_robust.data.specs import SPLITS, Dataset, datasets
from keras_robust.errors import InputError


@dataclass(frozen=True)
class Prepared(Dataset):
    """A dataset with a TensorFlow Datasets builder.

    Attributes:
        builder: the builder's name.
        module: module whose import makes the builder known, for builders of our own.
    """

    builder: str
    module: str | None = None

    def class_names(self, data_dir: str | None) -> tuple[str, ...]:
        return tuple(self._builder(data_dir).info.features["label"].names)

    def sizes(self, data_dir: str | None) -> Mapping[str, int]:
        known = self._builder(data_dir).info.splits
        return {split: known[split].num_examples for split in SPLITS if split in known}

    def read(self, split: str, data_dir: str | None, download: bool) -> Arrays:
        if download:
            self._prepare(self._builder(data_dir))
        size = self.sizes(data_dir).get(split, 0) * math.prod(self.image_shape)
        return (_kept if size <= _KEPT_BYTES else _stored)(self, split, data_dir)

    def _builder(self, data_dir: str | None) -> Any:
        import tensorflow_datasets as tfds

        if self.module:
            importlib.import_module(self.module)
        return tfds.builder(self.builder, data_dir=data_dir)

    def _prepare(self, builder: Any) -> None:
        try:
            builder.download_and_prepare()
        except Exception as error:  # those of a failed download or archive have no common class
            raise InputError(f"Cannot prepare {self.builder!r} in {builder.data_dir}: {error}") from error

    def _how_to_get(self, builder: Any) -> str:
        command = "" if self.module else f" or `tfds build {self.builder}`"
        manual = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
        return (
            f"No data for {self.builder!r}: looked in {builder.data_dir}. Set TFDS_DATA_DIR or data_dir to "
            f"the directory that holds it, or prepare it with download=True{command}. {manual}"
        ).rstrip()


def _stored(prepared: Prepared, split: str, data_dir: str | None) -> Arrays:
    """A split as it is stored, read-only."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = prepared._builder(data_dir)
    try:
        examples = builder.as_dataset(
            split=split,
            batch_size=1024,
            as_supervised=True,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),  # the order on disk
        )
    except AssertionError as error:  # how TFDS says that the files are not there
        raise InputError(prepared._how_to_get(builder)) from error
    try:
        return concatenate(tfds.as_numpy(examples)).frozen()
    except tf.errors.OpError as error:
        raise InputError(f"The files of {builder.name} in {builder.data_dir} are damaged: {error}") from error


# What reads a split now will soon read it again: both splits of three datasets.
_kept = lru_cache(maxsize=6)(_stored)
_KEPT_BYTES = 2**28


_CIFAR = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"

for _name, _image_shape, _num_classes, _source in (
    ("mnist", (28, 28, 1), 10, "LeCun, Cortes and Burges, The MNIST Database of Handwritten Digits"),
    ("fashion_mnist", (28, 28, 1), 10, "Xiao, Rasul and Vollgraf, arXiv:1708.07747"),
    ("cifar10", (32, 32, 3), 10, _CIFAR),
    ("cifar100", (32, 32, 3), 100, _CIFAR),
    ("svhn_cropped", (32, 32, 3), 10, "Netzer et al., Reading Digits in Natural Images, NIPS Workshop 2011"),
    ("stl10", (96, 96, 3), 10, "Coates, Ng and Lee, An Analysis of Single-Layer Networks, AISTATS 2011"),
):
    datasets.register(_name)(Prepared(_source, _image_shape, _num_classes, builder=_name))

datasets.register("tiny_imagenet")(
    Prepared(
        "Le and Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS 231N, 2015",
        image_shape=(64, 64, 3),
        num_classes=200,
        builder="tiny_imagenet",
        module="keras_robust.data.tiny_imagenet",
    )
)
