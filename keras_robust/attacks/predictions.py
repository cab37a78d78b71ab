"""Compiled predictions, without the bookkeeping of `predict`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.compiling import on_rows
from keras_robust.attacks.view import observe


def predict_logits(model: keras.Model, images: Any, jit_compile: bool | str = "auto") -> Any:
    """Logits of one batch, `(B, K)` float32 tensor."""

    def build() -> Any:
        return lambda batch: observe(model, batch).logits

    return on_rows(model, "logits", build, (images,), (), jit_compile)


def predict_classes(model: keras.Model, images: Any, jit_compile: bool | str = "auto") -> Any:
    """Class of each image of one batch, `(B,)` int32 tensor."""
    return ops.cast(ops.argmax(predict_logits(model, images, jit_compile), axis=-1), "int32")


def likeliest(
    model: keras.Model, images: np.ndarray, classes: int, jit_compile: bool | str
) -> Iterator[np.ndarray]:
    """The second likeliest class of each image, `(B,)` int32, then the third, and so on."""
    logits = np.asarray(predict_logits(model, images, jit_compile))
    ranked = np.argsort(-logits, axis=-1, kind="stable").astype("int32")
    yield from ranked.T[1 : classes + 1]


def classify(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Class of each image, `(N,)` int32 array, in batches.

    Args:
        model: maps images to logits `(B, K)`.
        images: `(N, ...)` float32.
        batch_size: images in a batch.

    >>> import keras_robust as kr
    >>> images, _ = kr.data.load("digits", "test", examples=4, seed=0)
    >>> classify(kr.zoo.load("at_digits"), images).shape
    (4,)
    """
    parts = [
        np.asarray(predict_classes(model, images[first : first + batch_size]))
        for first in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0,), "int32")
