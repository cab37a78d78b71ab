"""Detectors by kernel density: an adversarial code lies where its predicted class has few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_robust.detection.bandwidth import likeliest_bandwidth
from keras_robust.detection.base import Detector, Shown, detectors
from keras_robust.detection.logistic import log_odds
from keras_robust.detection.looking import look
from keras_robust.errors import require, require_above_zero, require_choice
from keras_robust.layers import KernelDensity
from keras_robust.models.latent import JointClassifier
from keras_robust.models.observed import observed, spaces
from keras_robust.validation import check_labels

_BATCH = 256
_LEAST_SCALE = 1e-6  # a deviation below it is none: the feature is left as it is


class DensityDetector(Detector):
    """The log-odds of "adversarial", linear in the log-density of an image's code in its predicted class.

    The density of a class is a Gaussian kernel density of the codes of the training images of that class
    (without training images: of every other clean image). A logistic regression on it tells adversarial
    images from clean and noisy ones.

    Args:
        space: what the codes are, a name in `models.observed.spaces`.
        bandwidth: of the kernel, in the units in which codes are compared; None: by cross-validation.
        standardize: compare codes after each feature is scaled to mean 0 and deviation 1.
        tuned: choose the regularisation of the regression by cross-validation.
    """

    shapes: ClassVar = {
        "mean": 1,
        "scale": 1,
        "centers": 2,
        "classes": 1,
        "bandwidth": 0,
        "slope": 0,
        "offset": 0,
    }
    needs = ("adversarial", "labels")

    def __init__(self, space: str, bandwidth: float | None, *, standardize: bool, tuned: bool) -> None:
        require_choice("space", space, spaces)
        if bandwidth is not None:
            require_above_zero(bandwidth=bandwidth)
        self.space = space
        self.bandwidth = bandwidth
        self.standardize = standardize
        self.tuned = tuned
        self._learnt: dict[str, np.ndarray] = {}

    def _learn(self, model: Any, shown: Shown) -> dict[str, np.ndarray]:
        known = shown.training
        if known is None:
            # An image is near itself: a density is judged on others than those that it is made of.
            known = shown.clean[::2], shown.labels[::2]
            shown = shown.take(slice(1, None, 2))
        learnt = self._density_of(model, *known)
        density = _density(learnt)
        others = np.concatenate([self._apply(density, model, images) for images in shown.harmless])
        attacked = self._apply(density, model, shown.adversarial)
        weights, offset = log_odds(others[:, None], attacked[:, None], tuned=self.tuned)
        return {**learnt, "slope": weights[0], "offset": np.asarray(offset)}

    def score(self, model: Any, images: Any) -> np.ndarray:
        """The log-odds of "adversarial", `(N,)` float32.

        Raises:
            InputError: not fit yet, not images of this model, or fit on codes of another size.
        """
        self._require_fit()
        return self._apply(_score(self._learnt), model, images)

    def guarded(self, model: keras.Model) -> keras.Model:
        """The classifier with rejection: one graph, which saves and exports like any Keras model.

        Returns:
            images `(B, ...)` to `{"logits": (B, K), "score": (B,) log-odds of "adversarial", "rejected":
            (B,) bool}`. Layers and variables of `model` are shared.

        Raises:
            InputError: not fit yet, or on codes of another size.
        """
        self._require_fit()
        shown = observed(model, self.space)
        features, logits = shown.outputs
        judge = _score(self._learnt)
        _check_codes(judge, features)
        score = judge([features, ops.argmax(logits, axis=-1)])
        outputs = {"logits": logits, "score": score, "rejected": ops.greater(score, 0.0)}
        return keras.Model(shown.inputs[0], outputs, name=model.name)

    def target(self, model: keras.Model) -> JointClassifier:
        """The classifier as an attacker sees it who knows of the detector: the score is its latent."""
        guarded = self.guarded(model)
        shown = [ops.expand_dims(guarded.output["score"], 1), guarded.output["logits"]]
        return JointClassifier(keras.Model(guarded.inputs[0], shown), name=model.name)

    def get_arrays(self) -> dict[str, np.ndarray]:
        self._require_fit()
        return dict(self._learnt)

    def set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        count, features = arrays["centers"].shape
        require(
            arrays["classes"].shape == (count,)
            and arrays["mean"].shape == arrays["scale"].shape == (features,)
            and count > 0
            and bool((arrays["scale"] > 0).all())
            and float(arrays["bandwidth"]) > 0,
            f"The arrays of {type(self).__name__} do not fit together: "
            f"{ {name: np.shape(array) for name, array in arrays.items()} }.",
        )
        self._learnt = dict(arrays)
        self.threshold = 0.0

    def _apply(self, graph: keras.Model, model: keras.Model, images: Any) -> np.ndarray:
        """What a graph on features and classes gives for images, `(N,)`."""
        parts = []
        for features, logits in look(model, self.space, images, _BATCH):
            _check_codes(graph, features)
            parts.append(np.asarray(graph([features, logits.argmax(axis=-1)])))
        return np.concatenate(parts)

    def _density_of(self, model: keras.Model, images: Any, labels: Any) -> dict[str, np.ndarray]:
        """Centres, how codes are scaled, and the bandwidth."""
        classes = check_labels(labels, model.output_shape[-1], len(images))
        _check_classes(classes, model.output_shape[-1])
        codes = np.concatenate([features for features, _ in look(model, self.space, images, _BATCH)])
        mean, scale = np.zeros(codes.shape[1], "float32"), np.ones(codes.shape[1], "float32")
        if self.standardize:
            mean, deviation = codes.mean(axis=0), codes.std(axis=0)
            scale = np.where(deviation > _LEAST_SCALE, deviation, 1.0).astype("float32")
        centers = (codes - mean) / scale
        bandwidth = self.bandwidth or likeliest_bandwidth(centers, classes)
        return {
            "mean": mean,
            "scale": scale,
            "centers": centers,
            "classes": classes,
            "bandwidth": np.asarray(bandwidth),
        }


@detectors.register("er1")
class ERDetector(DensityDetector):
    """Kernel density of the code of an ER-Classifier: ER1, and on `"hidden_and_latent"` ER2.

    Args:
        space: "latent": the code Z (ER1); "hidden_and_latent": Z' = [means of the encoder's hidden layers, Z]
            (ER2).
        bandwidth: of the kernel, in deviations of a feature; None: by cross-validation.

    Each feature is scaled to mean 0 and deviation 1 over the training codes first.

    Source: ER-Classifier (ICCV 2021), algorithm 2; the bandwidth is not stated there.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> images, labels = kr.data.load("digits", "test", examples=200, seed=0)
    >>> adversarial = kr.attacks.FGSM(eps=0.3)(model, images, labels)
    >>> detector = ERDetector().fit(model, images, adversarial, labels=labels)
    >>> sorted(detector.guarded(model).output)
    ['logits', 'rejected', 'score']
    """

    def __init__(self, space: str = "latent", bandwidth: float | None = None) -> None:
        super().__init__(space, bandwidth, standardize=True, tuned=False)

    def get_config(self) -> dict[str, Any]:
        return {"space": self.space, "bandwidth": self.bandwidth}


@detectors.register("er2")
class ER2Detector(ERDetector):
    """`ERDetector` on Z' = [means of the encoder's hidden layers, Z].

    Args:
        space, bandwidth: as in `ERDetector`.

    Source: ER-Classifier (ICCV 2021), algorithm 2.

    >>> ER2Detector(bandwidth=0.5).get_config()
    {'space': 'hidden_and_latent', 'bandwidth': 0.5}
    """

    def __init__(self, space: str = "hidden_and_latent", bandwidth: float | None = None) -> None:
        super().__init__(space, bandwidth)


@detectors.register("kernel_density")
class KernelDensityDetector(DensityDetector):
    """Kernel density of the last hidden layer of any classifier.

    Args:
        bandwidth: of the kernel, in the units of the features; 1.2 on MNIST and 0.26 on CIFAR-10 in the
            paper, whose networks have features of another size than others; None: by cross-validation.

    Source: Feinman et al. 2017, "Detecting adversarial samples from artifacts", section 5.1, without its
    second feature, the variance under dropout.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> images, labels = kr.data.load("digits", "test", examples=200, seed=0)
    >>> adversarial = kr.attacks.FGSM(eps=0.3)(model, images, labels)
    >>> detector = KernelDensityDetector(bandwidth=1.2).fit(model, images, adversarial, labels=labels)
    >>> detector.roc_auc(model, images, adversarial) > 0.5
    True
    """

    def __init__(self, bandwidth: float | None = None) -> None:
        super().__init__("last_hidden", bandwidth, standardize=False, tuned=True)

    def get_config(self) -> dict[str, Any]:
        return {"bandwidth": self.bandwidth}


def _density(learnt: Mapping[str, np.ndarray]) -> keras.Model:
    """`[features (B, D), classes (B,)]` to the log-density of each code in its class `(B,)`."""
    features = keras.Input(learnt["mean"].shape, name="features")
    classes = keras.Input((), dtype="int32", name="classes")
    inverse = 1.0 / learnt["scale"]
    scaling = inverse.tolist(), (-learnt["mean"] * inverse).tolist()
    codes = keras.layers.Rescaling(*scaling, dtype="float32", name="standardize")(features)
    layer = KernelDensity(len(learnt["centers"]), float(learnt["bandwidth"]), name="kernel_density")
    layer.set_centers(learnt["centers"], learnt["classes"])
    return keras.Model([features, classes], layer((codes, classes)), name="density")


def _score(learnt: Mapping[str, np.ndarray]) -> keras.Model:
    """`[features (B, D), classes (B,)]` to the log-odds of "adversarial" `(B,)`."""
    density = _density(learnt)
    regression = float(learnt["slope"]), float(learnt["offset"])
    odds = keras.layers.Rescaling(*regression, dtype="float32", name="log_odds")(density.output)
    return keras.Model(density.inputs, odds, name="score")


def _check_codes(graph: keras.Model, features: Any) -> None:
    """Refuse codes of another size than a graph on features and classes was made for."""
    known, given = graph.inputs[0].shape[-1], features.shape[-1]
    require(
        known == given,
        f"The detector was fit on codes of {known} features, of another model. Received: {given}.",
    )


def _check_classes(classes: np.ndarray, count: int) -> None:
    missing = sorted(set(range(count)) - set(classes.tolist()))
    require(
        not missing,
        f"A density of every class needs an image of each. Without: {', '.join(map(str, missing[:10]))}.",
    )
