"""Detection by local intrinsic dimension in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_robust.detection.base import Detector, Shown, detectors
from keras_robust.detection.logistic import log_odds
from keras_robust.detection.looking import look
from keras_robust.errors import require
from keras_robust.validation import check_images

_BATCH = 100
_TINY = 1e-12


@detectors.register("lid")
class LIDDetector(Detector):
    """The log-odds of "adversarial", linear in the local intrinsic dimension of an image in every layer.

    In each layer, the images themselves included, the dimension is estimated from the distances to the
    nearest of a batch of clean images, which the detector keeps.

    Args:
        neighbors: k, >= 2.
        batch: clean images among which neighbours are looked for, > k; fewer if `fit` is given few: at most
            half of the clean ones.

    Source: Ma et al. 2018, "Characterizing adversarial subspaces using local intrinsic dimensionality",
    algorithm 1. There each batch has its own neighbours, the clean images that it was made of, which an
    image to be judged does not come with.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> images, labels = kr.data.load("digits", "test", examples=200, seed=0)
    >>> adversarial = kr.attacks.FGSM(eps=0.3)(model, images, labels)
    >>> LIDDetector().fit(model, images, adversarial).roc_auc(model, images, adversarial) > 0.5
    True
    """

    shapes: ClassVar = {"reference": None, "weights": 1, "offset": 0}
    needs = ("adversarial",)

    def __init__(self, neighbors: int = 20, batch: int = 100) -> None:
        for name, value in {"neighbors": neighbors, "batch": batch}.items():
            require(
                isinstance(value, int) and value >= 2,
                f"{name} must be an integer >= 2. Received: {name}={value!r}.",
            )
        require(
            neighbors < batch, f"neighbors must be below batch, {batch}. Received: neighbors={neighbors}."
        )
        self.neighbors = neighbors
        self.batch = batch
        self._learnt: dict[str, np.ndarray] = {}

    def _learn(self, model: Any, shown: Shown) -> dict[str, np.ndarray]:
        clean = check_images(shown.clean, model.input_shape[1:])
        count = min(self.batch, len(clean) // 2)
        require(
            count > self.neighbors,
            f"LIDDetector needs more than {2 * self.neighbors} clean images. Received: {len(clean)}.",
        )
        reference, shown = clean[:count], shown.take(slice(count, None))
        others = [self._dimensions(model, reference, images) for images in shown.harmless]
        attacked = self._dimensions(model, reference, shown.adversarial)
        weights, offset = log_odds(np.concatenate(others), attacked, tuned=True)
        return {"reference": reference, "weights": weights, "offset": np.asarray(offset)}

    def score(self, model: Any, images: Any) -> np.ndarray:
        """The log-odds of "adversarial", `(N,)`.

        Raises:
            InputError: not fit yet, not images of this model, or fit on a model of other images or layers.
        """
        self._require_fit()
        weights = self._learnt["weights"]
        dimensions = self._dimensions(model, self._learnt["reference"], images)
        layers = dimensions.shape[1]
        require(
            layers == len(weights),
            f"LIDDetector was fit on {len(weights)} layers, of another model. Received: {layers}.",
        )
        return dimensions @ weights + self._learnt["offset"]

    def get_config(self) -> dict[str, Any]:
        return {"neighbors": self.neighbors, "batch": self.batch}

    def get_arrays(self) -> dict[str, np.ndarray]:
        self._require_fit()
        return dict(self._learnt)

    def set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        require(
            len(arrays["reference"]) > self.neighbors,
            f"LIDDetector looks for {self.neighbors} neighbours. "
            f"Received: {len(arrays['reference'])} images to look among.",
        )
        self._learnt = dict(arrays)
        self.threshold = 0.0

    def _dimensions(self, model: keras.Model, reference: np.ndarray, images: Any) -> np.ndarray:
        """Local intrinsic dimension of each image in each layer, `(N, layers)`."""
        from sklearn.neighbors import NearestNeighbors

        ((shown, _),) = look(model, "layers", reference, len(reference))
        nearest = [
            NearestNeighbors(n_neighbors=self.neighbors, algorithm="brute").fit(features)
            for features in shown
        ]
        rows = []
        for shown, _ in look(model, "layers", images, _BATCH):
            found = [near.kneighbors(features)[0] for near, features in zip(nearest, shown, strict=True)]
            rows.append(np.stack([local_dimension(distances) for distances in found], axis=1))
        return np.concatenate(rows)


def local_dimension(distances: np.ndarray) -> np.ndarray:
    """-(mean log(r_i / r_k))⁻¹ of rising distances r_1 ... r_k to neighbours, `(N, k)` to `(N,)`.

    The maximum likelihood estimate of the local intrinsic dimension, Amsaleg et al. 2015.

    >>> local_dimension(np.array([[1.0, np.e]])).tolist()
    [2.0]
    """
    logs = np.log(np.maximum(distances, _TINY) / np.maximum(distances[:, -1:], _TINY))
    return -1.0 / np.minimum(logs.mean(axis=1), -_TINY)
