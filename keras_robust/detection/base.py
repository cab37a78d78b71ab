"""What every detector does: fit, score, predict, and turn into arrays and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from keras_robust.errors import require
from keras_robust.registry import Registry

detectors: Registry[type[Detector]] = Registry("detector")


class Shown(NamedTuple):
    """What a detector is fit on; see `Detector.fit`."""

    clean: Any
    adversarial: Any
    noisy: Any
    labels: Any
    training: tuple[Any, Any] | None

    @property
    def harmless(self) -> list[Any]:
        """Clean images, and noisy ones if there are any."""
        return [images for images in (self.clean, self.noisy) if images is not None]

    def take(self, rows: slice) -> Shown:
        """Some of the clean images, with what was made of them: what there is one of for each clean image."""
        count = len(self.clean)
        kinds = ("clean", "adversarial", "noisy", "labels")
        given = {name: images for name in kinds if (images := getattr(self, name)) is not None}
        return self._replace(**{name: some[rows] for name, some in given.items() if len(some) == count})


class Detector(ABC):
    """Tells adversarial inputs of one classifier from clean and noisy ones.

    Attributes:
        threshold: scores above it are called adversarial; None before `fit`.
        shapes: names of the arrays that `fit` learns, each with its number of axes; None: images or points.
        needs: what `fit` must be given beside clean images.
    """

    threshold: float | None = None
    shapes: ClassVar[Mapping[str, int | None]]
    needs: ClassVar[tuple[str, ...]] = ()

    def fit(
        self,
        model: Any,
        clean: Any,
        adversarial: Any = None,
        noisy: Any = None,
        labels: Any = None,
        training: tuple[Any, Any] | None = None,
    ) -> Self:
        """Learn from inputs of each kind; what a detector has no use for may be left out.

        A detector that keeps some of the clean images, to compare others with, does not learn from what was
        made of those: as many adversarial or noisy images as clean ones are taken to be made of these, in
        their order.

        Args:
            model: the classifier that is guarded.
            clean: images `(N, ...)` float32 in [0, 1].
            adversarial: images made on `model`, usually of `clean`.
            noisy: images with random noise of the size of the attack, which are not adversarial.
            labels: classes of the clean images `(N,)`.
            training: images that the classifier was trained on, and their labels, for a detector that
                looks at where training left the codes.

        Returns:
            itself.

        Raises:
            InputError: what it needs is not given, or is too little.
        """
        shown = Shown(clean, adversarial, noisy, labels, training)
        missing = [name for name in self.needs if getattr(shown, name) is None]
        require(
            not missing,
            f"{type(self).__name__} is fit on clean images and on {', '.join(self.needs)}. "
            f"Without: {', '.join(missing)}.",
        )
        self.set_arrays(self._learn(model, shown))
        return self

    @abstractmethod
    def _learn(self, model: Any, shown: Shown) -> dict[str, np.ndarray]:
        """What `set_arrays` takes."""

    @abstractmethod
    def score(self, model: Any, images: Any) -> np.ndarray:
        """One number an image, `(N,)`: the larger, the likelier adversarial."""

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The options of the constructor, as plain data."""

    @abstractmethod
    def get_arrays(self) -> dict[str, np.ndarray]:
        """What `fit` learnt, by the names in `shapes`."""

    @abstractmethod
    def set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what another `fit` learnt; numeric, finite, of the axes in `shapes`.

        Raises:
            InputError: arrays that do not fit together.
        """

    def predict(self, model: Any, images: Any) -> np.ndarray:
        """Which images are called adversarial, `(N,)` bool."""
        self._require_fit()
        return self.score(model, images) > self.threshold

    def roc_auc(self, model: Any, clean: Any, adversarial: Any) -> float:
        """Area under the ROC curve of the scores, in [0, 1]; see `roc_auc`."""
        return roc_auc(self.score(model, clean), self.score(model, adversarial))

    def _require_fit(self) -> None:
        require(self.threshold is not None, f"{type(self).__name__} has no threshold yet: fit it first.")


def roc_auc(clean: np.ndarray, adversarial: np.ndarray) -> float:
    """Area under the ROC curve: how likely an adversarial input has a higher score than a clean one.

    Args:
        clean: scores `(N,)`, N >= 1.
        adversarial: scores `(M,)`, M >= 1.

    Raises:
        InputError: one of them is empty.

    >>> roc_auc(np.array([0.1, 0.4]), np.array([0.3, 0.8]))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    require(
        len(clean) > 0 and len(adversarial) > 0,
        "A ROC curve needs scores of both kinds. "
        f"Received: {len(clean)} clean and {len(adversarial)} adversarial ones.",
    )
    truth = np.repeat([0, 1], [len(clean), len(adversarial)])
    return float(roc_auc_score(truth, np.concatenate([clean, adversarial])))
