"""What the values in a `tf.data` dataset must be; they are looked at as they are drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from keras_robust.errors import InputError


def checked(dataset: tf.data.Dataset, num_classes: int) -> tf.data.Dataset:
    """The same batches; drawing one fails whose images are not in [0, 1] or whose labels are no classes."""
    return dataset.map(partial(_checked, num_classes))


@contextmanager
def told_as_bad_input() -> Iterator[None]:
    """Within it such a failure is an `InputError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"assertion failed: \[((Images|Labels) must be .*?\.)\]", str(error))
        if found is None:
            raise
        raise InputError(found[1]) from error


def _checked(num_classes: int, *batch: Any) -> Any:
    if (
        len(batch) >= 2 and _are_images(batch[0]) and _are_labels(batch[1])
    ):  # else the step says what is wrong
        images, labels = batch[:2]
        _require((images >= 0) & (images <= 1), images, "Images must be in [0, 1]")
        valid = f"Labels must be integers 0 to {num_classes - 1}"
        _require((labels >= 0) & (labels < num_classes), labels, valid)
    return batch if len(batch) > 1 else batch[0]


def _require(holds: tf.Tensor, values: tf.Tensor, valid: str) -> None:
    received = (tf.reduce_min(values), tf.reduce_max(values))
    words = tf.strings.format(f"{valid}, received values from {{}} to {{}}.", received)
    tf.debugging.Assert(tf.reduce_all(holds), [words])


def _are_images(part: Any) -> bool:
    return isinstance(part, tf.Tensor) and keras.backend.is_float_dtype(part.dtype.name)


def _are_labels(part: Any) -> bool:
    return isinstance(part, tf.Tensor) and keras.backend.is_int_dtype(part.dtype.name)
