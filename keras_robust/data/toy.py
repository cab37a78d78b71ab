"""Small datasets that need no files: scikit-learn's digits and the two moons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from keras_robust.data.arrays import Arrays, holdout
from keras_robust.data.specs import Dataset, datasets


@dataclass(frozen=True)
class Embedded(Dataset):
    """A dataset that a function makes in memory."""

    names: tuple[str, ...]
    split_sizes: Mapping[str, int]
    make: Callable[[str], Arrays]

    def class_names(self, data_dir: str | None) -> tuple[str, ...]:
        return self.names

    def sizes(self, data_dir: str | None) -> Mapping[str, int]:
        return self.split_sizes

    def read(self, split: str, data_dir: str | None, download: bool) -> Arrays:
        return self.make(split)


@cache  # parsing their file takes longer than a small model's epoch
def _digits(split: str) -> Arrays:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    train, test = holdout(Arrays(images, labels.astype(np.int32)), 360)
    return (train if split == "train" else test).frozen()


def _two_moons(split: str) -> Arrays:
    from sklearn.datasets import make_moons

    points, labels = make_moons(1000, noise=0.1, random_state=("train", "test").index(split))
    # One scale for both axes keeps distances; the moons span [-1, 2] x [-0.5, 1] around (0.5, 0.25).
    points = (points - [0.5, 0.25]) / 4 + 0.5
    return Arrays(np.clip(points, 0, 1).astype(np.float32), labels.astype(np.int32))


datasets.register("digits")(
    Embedded(
        source="scikit-learn load_digits: Optical Recognition of Handwritten Digits, UCI, test part",
        image_shape=(8, 8, 1),
        num_classes=10,
        names=tuple("0123456789"),
        split_sizes={"train": 1437, "test": 360},
        make=_digits,
    )
)
datasets.register("two_moons")(
    Embedded(
        source="scikit-learn make_moons, noise 0.1, a quarter of its size",
        image_shape=(2,),
        num_classes=2,
        names=("upper", "lower"),
        split_sizes={"train": 1000, "test": 1000},
        make=_two_moons,
    )
)
