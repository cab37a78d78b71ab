"""What a classifier shows of many images, as arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_robust.attacks.compiling import on_rows
from keras_robust.attacks.predictions import predict_logits
from keras_robust.attacks.view import observe

_BATCH = 256


class Seen(NamedTuple):
    """Logits `(N, K)` and, of a `LatentClassifier`, latents as rows `(N, D)`, else None; float32 arrays."""

    logits: np.ndarray
    latent: Any = None

    @property
    def classes(self) -> np.ndarray:
        """The class predicted, `(N,)`."""
        return self.logits.argmax(axis=-1)


def see(model: keras.Model, images: np.ndarray) -> Seen:
    """Logits and latents of float32 images `(N, ...)`, N >= 1, in batches."""
    batches = [images[first : first + _BATCH] for first in range(0, len(images), _BATCH)]
    if not hasattr(model, "latent_and_logits"):
        return Seen(np.concatenate([predict_logits(model, batch) for batch in batches]))
    shown = [on_rows(model, "view", lambda: _viewing(model), (batch,), (), "auto") for batch in batches]
    logits, latents = (np.concatenate(parts) for parts in zip(*shown, strict=True))
    return Seen(logits, latents.reshape(len(latents), -1))


def _viewing(model: keras.Model) -> Any:
    return lambda images: tuple(observe(model, images))
