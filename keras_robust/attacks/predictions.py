"""Compiled predictions: the classes a model gives, without `predict`'s bookkeeping."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.attacks.compiling import compiled, free_batch
from keras_robust.attacks.view import observe


def predict_classes(model: keras.Model, images: Any, jit_compile: bool | str = "auto") -> Any:
    """Class of each image of one batch, `(B,)` int32 tensor."""
    images = ops.convert_to_tensor(images)
    function = compiled(
        model,
        "classes",
        lambda: lambda batch: ops.cast(ops.argmax(observe(model, batch).logits, axis=-1), "int32"),
        (free_batch(images),),
        jit_compile,
    )
    return function(images)


def classify(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Class of each image, `(N,)` int32 array, in batches."""
    parts = [
        np.asarray(predict_classes(model, images[first : first + batch_size]))
        for first in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0,), "int32")
