"""Several attacks in turn, each on what still stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.attacks.predictions import predict_classes


@dataclass(frozen=True, kw_only=True)
class Sequence(Attack):
    """Base of attacks that are a sequence of others; a subclass gives its `stages`."""

    @property
    def stages(self) -> dict[str, Attack]:
        raise NotImplementedError

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> np.ndarray:
        adversarial = images.copy()
        standing = np.arange(len(images))
        for stage in self.stages.values():
            found = stage.run(model, images[standing], labels[standing], key=key)
            adversarial[standing] = found
            fooled = np.asarray(predict_classes(model, found, self.jit_compile)) != labels[standing]
            standing = standing[~fooled]
            if not standing.size:
                break
        return adversarial
