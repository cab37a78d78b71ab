"""The entropy of the prediction as a sign of an adversarial input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from keras_robust import losses
from keras_robust.attacks.seen import see
from keras_robust.detection.base import Detector, Shown, detectors
from keras_robust.errors import is_finite, require
from keras_robust.validation import check_images, check_logits


@detectors.register("entropy")
class EntropyDetector(Detector):
    """Calls an input adversarial if the entropy of its prediction is high.

    Args:
        false_positive_rate: the share of clean (and noisy) inputs that may be called adversarial, in [0, 1);
            it sets the threshold in `fit`, which needs no adversarial inputs.

    Wherever a model is asked for, None says that logits `(N, K)` stand in the place of images.

    Raises:
        InputError: a rate that is not in [0, 1).

    Source: Bui et al., ECCV 2020, which proposes it for classifiers with compact latents.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> images, labels = kr.data.load("digits", "test", examples=100, seed=0)
    >>> detector = EntropyDetector(false_positive_rate=0.1).fit(model, images)
    >>> float(detector.predict(model, images).mean())
    0.09
    """

    shapes: ClassVar = {"threshold": 0}

    def __init__(self, false_positive_rate: float = 0.05) -> None:
        require(
            is_finite(false_positive_rate) and 0 <= false_positive_rate < 1,
            f"false_positive_rate must be in [0, 1). Received: {false_positive_rate!r}.",
        )
        self.false_positive_rate = false_positive_rate

    def _learn(self, model: Any, shown: Shown) -> dict[str, np.ndarray]:
        scores = np.concatenate([self.score(model, images) for images in shown.harmless])
        # An entropy that occurred, so that no more than the share lies above it.
        return {"threshold": np.quantile(scores, 1 - self.false_positive_rate, method="higher")}

    def score(self, model: Any, images: Any) -> np.ndarray:
        if model is not None:
            images = see(model, check_images(images, model.input_shape[1:])).logits
        return np.asarray(losses.entropy(check_logits(images)))

    def get_config(self) -> dict[str, Any]:
        return {"false_positive_rate": self.false_positive_rate}

    def get_arrays(self) -> dict[str, np.ndarray]:
        self._require_fit()
        return {"threshold": np.asarray(self.threshold)}

    def set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.threshold = float(arrays["threshold"])
