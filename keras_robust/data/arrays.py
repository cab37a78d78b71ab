"""Labelled images in memory, and the two ways to draw a part of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_robust.errors import InputError, require


class Arrays(NamedTuple):
    """Images with their labels; unpacks as `images, labels = arrays`.

    Attributes:
        images: `(N, H, W, C)`, or `(N, D)` for points: float32 in [0, 1], or uint8 in 0..255 as stored.
        labels: `(N,)` int32 class indices.

    >>> arrays = Arrays(np.full((2, 1, 1, 1), 255, "uint8"), np.array([0, 1], "int32"))
    >>> arrays.as_float().images.ravel()
    array([1., 1.], dtype=float32)
    """

    images: np.ndarray
    labels: np.ndarray

    def as_float(self) -> Arrays:
        """The same examples with float32 images in [0, 1], in arrays of their own."""
        images = self.images.astype(np.float32)
        if self.images.dtype != np.float32:
            images /= np.float32(255)
        return Arrays(images, self.labels.copy())

    def frozen(self) -> Arrays:
        """Itself, its arrays made read-only, because many share them."""
        for array in self:
            array.flags.writeable = False
        return self

    def take(self, indices: Any) -> Arrays:
        """The examples at `indices`, in that order."""
        return Arrays(self.images[indices], self.labels[indices])


def concatenate(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    """All the batches of (images, labels) as one."""
    images, labels = zip(*batches, strict=True)
    return Arrays(np.concatenate(images), np.concatenate(labels).astype(np.int32))


def check(arrays: Arrays) -> Arrays:
    """`arrays` itself if it keeps the promises of `Arrays`.

    Raises:
        InputError: lengths differ, or the images are neither uint8 nor float32 in [0, 1].
    """
    images, labels = arrays
    require(
        len(images) == len(labels) and labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer),
        f"Expected one integer label per image. Received: {len(images)} images and "
        f"labels of shape {labels.shape} and dtype {labels.dtype}.",
    )
    require(len(labels) > 0, "Expected at least one image. Received: none.")
    require(
        images.dtype in (np.uint8, np.float32),
        f"Images must be uint8, or float32 in [0, 1]. Received: {images.dtype}.",
    )
    if images.dtype == np.float32:
        low, high = images.min(), images.max()
        require(
            bool(low >= 0 and high <= 1),
            f"float32 images must lie in [0, 1]. Received: values from {low} to {high}.",
        )
    return arrays


def subset(size: int, examples: int | None = None, seed: int | None = None) -> np.ndarray:
    """Which of `size` examples a run on `examples` of them uses.

    The same arguments give the same answer, so a report can state it.

    Args:
        size: number of examples there are.
        examples: number wanted; None: all.
        seed: seed of a uniform draw without replacement; None: the first `examples`.

    Returns:
        Sorted int64 indices, `(examples,)`.

    Raises:
        InputError: `examples` is not in 1..size, or the seed is negative.

    >>> subset(10, 3)
    array([0, 1, 2])
    """
    if examples is None:
        return np.arange(size)
    require(1 <= examples <= size, f"examples must be in 1..{size}. Received: {examples}.")
    if seed is None:
        return np.arange(examples)
    require(seed >= 0, f"seed must be an integer >= 0. Received: {seed!r}.")
    return np.sort(np.random.default_rng(seed).choice(size, examples, replace=False))


def holdout(arrays: Arrays, size: int | float, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Set a stratified part of the examples aside, for example for validation.

    Args:
        arrays: the examples.
        size: how many to hold out: a count (int) or a share in (0, 1) (float).
        seed: seed of the split.

    Returns:
        `(train, held_out)`: disjoint, together complete, each in the original order, with the classes in
        the same proportions up to rounding.

    Raises:
        InputError: `size` leaves a part without some class, or a class has fewer than two examples.

    >>> arrays = Arrays(np.zeros((10, 2), "float32"), np.arange(10, dtype="int32") % 2)
    >>> train, held_out = holdout(arrays, 4)
    >>> np.bincount(held_out.labels)
    array([2, 2])
    """
    from sklearn.model_selection import train_test_split

    check(arrays)
    indices = np.arange(len(arrays.labels))
    try:
        train, held_out = train_test_split(indices, test_size=size, random_state=seed, stratify=arrays.labels)
    except ValueError as error:
        raise InputError(f"Cannot hold out {size!r} of {len(indices)} examples: {error}") from error
    return arrays.take(np.sort(train)), arrays.take(np.sort(held_out))
