"""Inference with manifold transformation: a step towards the clean manifold before the classifier looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.errors import is_finite, require, require_choice, require_not_negative
from keras_robust.layers import StraightThrough
from keras_robust.models.discriminators import SEEN, check_discriminator, kept_beside
from keras_robust.models.kept import kept_on
from keras_robust.models.latent import require_latent
from keras_robust.models.registry import wrapped_in, wrappers
from keras_robust.models.smoothing import smoothed
from keras_robust.models.ways import STATIC

MODES = ("imt", "imt+")
GRADIENTS = ("identity", "second_order")

serialize = keras.saving.serialize_keras_object
deserialize = keras.saving.deserialize_keras_object


@wrappers.register("manifold_transform")
def with_manifold_transform(
    model: keras.Model,
    discriminator: keras.Model | None = None,
    mode: str = "imt+",
    *,
    eps: float = 8 / 255,
    band: Sequence[float] = (0.3, 0.7),
    threshold: float | None = None,
    on: str = "logits",
    gradient: str = "identity",
) -> ManifoldTransformed:
    """`model` on images that were moved towards what its discriminator takes for clean.

    x_t = clip(x + m · eps · sign(gradient of log P(clean) at x)): one step, then the classifier. The result
    is one graph: it serves, saves and exports as a SavedModel (TFLite has no gradients).

    Nothing about it is a secret: an attack on the result goes end to end. `gradient` chooses what such an
    attack is given for the step itself, and changes no output. Images made on `model` and shown to the
    result are the grey-box protocol of the paper, whose attacker does not know of the transform. `evaluate`
    attacks the result by both values and in the grey box.

    Args:
        model: `LatentClassifier`, images `(B, ...)` in [0, 1] to logits `(B, K)`. Layers and variables are
            shared.
        discriminator: of `build_discriminator`, trained with `model` by ATLD; None: the one that is kept
            beside `model`.
        mode: "imt": m = 1; "imt+": m = 0.5 where the discriminator is unsure, 1 elsewhere.
        eps: length of the step, in the units of the images, >= 0.
        band: unsure is a P(clean) strictly within it, as in the authors' code (SVHN: 0.3 to 0.6).
        threshold: if given, in the place of `band`: unsure is a P(adversarial) below it, as the paper's
            section 4.2 has it.
        on: what the discriminator looks at, the "logits" or the "latent".
        gradient: "identity": the step passes gradients unchanged (BPDA), which is its true gradient almost
            everywhere but at the bounds; "second_order": the sign is replaced by its argument divided by
            its mean size, so that gradients also pass through the gradient; for them the rectifiers of both
            models are smooth, or there would be nothing to pass. They are copies, which `kr.evaluate`
            brings up to date; load weights before you wrap a model, or attack `ways_to_attack()`.

    Raises:
        InputError: an option that is not as described, or a discriminator of another input.

    Source: ATLD (ICLR 2021 submission), section 4.2; Croce et al. 2022 on how to attack it.

    >>> import keras_robust as kr
    >>> model = kr.models.build("small_cnn")
    >>> discriminator = kr.models.build_discriminator("residual_mlp", (10,))
    >>> with_manifold_transform(model, discriminator, "imt").output_shape
    (None, 10)
    """
    if discriminator is None:
        discriminator = kept_beside(model)
    check_band(band)
    options: dict[str, Any] = {
        "mode": mode,
        "eps": eps,
        "band": tuple(band),
        "threshold": threshold,
        "on": on,
        "gradient": gradient,
    }
    return wrapped_in("manifold_transform", ManifoldTransformed(model, discriminator, **options), options)


@keras.saving.register_keras_serializable("keras_robust")
class ManifoldTransform(keras.layers.Layer):
    """x_t = clip(x + m · eps · sign(gradient of log P(clean) at x)), images to images.

    In the backward pass the sign stands for its argument divided by its mean size, and the clip for nothing.

    Args:
        classifier, discriminator, mode, eps, band, threshold, on: see `with_manifold_transform`.
        options: those of `keras.layers.Layer`.
    """

    why_not_tflite = "it takes a gradient at inference"

    def __init__(
        self,
        classifier: keras.Model,
        discriminator: keras.Model,
        mode: str = "imt+",
        eps: float = 8 / 255,
        band: Sequence[float] = (0.3, 0.7),
        threshold: float | None = None,
        on: str = "logits",
        dtype: Any = "float32",
        **options: Any,
    ) -> None:
        super().__init__(dtype=dtype, **options)
        _check(mode, eps, band, threshold, on)
        check_discriminator(discriminator, classifier, on)
        self.classifier = classifier
        self.discriminator = discriminator
        self.mode = mode
        self.eps = eps
        self.band = tuple(band)
        self.threshold = threshold
        self.on = on

    def call(self, images: Any) -> Any:
        score, uphill = self._look(images)
        size = tf.reshape(self.eps * self._share(tf.sigmoid(score)), (-1,) + (1,) * (len(images.shape) - 1))
        moved = images + tf.cast(size * _sign(uphill), images.dtype)
        return moved + tf.stop_gradient(tf.clip_by_value(moved, 0.0, 1.0) - moved)

    def _look(self, images: Any) -> tuple[Any, Any]:
        """The logit of P(clean) and its gradient, whose sign is that of log P(clean) but never vanishes."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            seen = self._seen(images)
            score = self.discriminator(tf.cast(seen, tf.float32), training=False)["manifold"]
        return score, tape.gradient(score, images)

    def _seen(self, images: Any) -> Any:
        if self.on == "logits":
            return self.classifier(images, training=False)
        return self.classifier.latent_and_logits(images, training=False)[0]

    def _share(self, clean: Any) -> Any:
        """How much of eps to go, `(B,)`."""
        if self.mode == "imt":
            return tf.ones_like(clean)
        low, high = self.band
        unsure = (low < clean) & (clean < high) if self.threshold is None else 1 - clean < self.threshold
        return tf.where(unsure, 0.5, 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def exact_layers(self) -> list[keras.layers.Layer]:
        """What computes in float32 where a copy computes in bfloat16."""
        return [self, *self.discriminator._flatten_layers()]

    def smoothed(self) -> ManifoldTransform:
        """Near this step, with smooth rectifiers, and the weights as they are now."""
        models = smoothed(self.classifier), smoothed(self.discriminator)
        return ManifoldTransform(*models, **self.settings, name=f"smooth_{self.name}")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **_parts_config(self), **self.settings}

    @property
    def settings(self) -> dict[str, Any]:
        """The options that decide the step, as plain data."""
        names = ("mode", "eps", "band", "threshold", "on")
        return {name: list(value) if name == "band" else value for name, value in _attributes(self, names)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ManifoldTransform:
        return cls(**_with_parts(config))


@keras.saving.register_keras_serializable("keras_robust")
class ManifoldTransformed(keras.Model):
    """A classifier on transformed images: what `with_manifold_transform` returns.

    Attributes:
        classifier: the static classifier.
        discriminator: what decides the step.
    """

    def __init__(
        self,
        classifier: keras.Model,
        discriminator: keras.Model,
        *,
        gradient: str = "identity",
        name: str | None = None,
        **options: Any,
    ) -> None:
        require_choice("gradient of the manifold transform", gradient, GRADIENTS)
        require_latent("The manifold transform", classifier)
        transform = ManifoldTransform(classifier, discriminator, **options, name="manifold_transform")
        stand_in = transform.smoothed() if gradient == "second_order" else None
        step = StraightThrough(transform, stand_in, dtype="float32", name="straight_through_transform")
        images = keras.Input(classifier.input_shape[1:], name="images")
        super().__init__(images, classifier(step(images)), name=name or classifier.name)
        self.classifier = classifier
        self.discriminator = discriminator
        self.step = step
        self.transform = transform
        self.gradient = gradient

    def latent_and_logits(self, images: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Latent `(B, ...)` and logits `(B, K)` of the transformed images."""
        return self.classifier.latent_and_logits(self.step(images), training=training)

    def ways_to_attack(self) -> dict[str, keras.Model]:
        """On what an attack should make its images as well, as the weights are now: see `models.ways`."""
        self._renew()
        others = [gradient for gradient in GRADIENTS if gradient != self.gradient]
        return {STATIC: self.classifier, **{gradient: self._by_way_of(gradient) for gradient in others}}

    def _by_way_of(self, gradient: str) -> ManifoldTransformed:
        """The same with another gradient."""
        options = {**self.transform.settings, "name": self.name, "gradient": gradient}
        other = kept_on(
            self, gradient, lambda: ManifoldTransformed(self.classifier, self.discriminator, **options)
        )
        other._renew()
        return other

    def _renew(self) -> None:
        """Give the smooth copies the weights of what they stand for, which may have been trained since."""
        if isinstance(self.step.backward, ManifoldTransform):
            self.step.backward.set_weights(self.transform.get_weights())

    def get_config(self) -> dict[str, Any]:
        parts = _parts_config(self)
        return {**parts, **self.transform.settings, "gradient": self.gradient, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ManifoldTransformed:
        return cls(**_with_parts(config, custom_objects))


def _sign(direction: Any) -> Any:
    """The sign; in the backward pass the direction over its mean size in each example."""
    axes = tuple(range(1, len(direction.shape)))
    size = tf.stop_gradient(tf.reduce_mean(tf.abs(direction), axis=axes, keepdims=True))
    smooth = tf.math.divide_no_nan(direction, size)
    return smooth + tf.stop_gradient(tf.sign(direction) - smooth)


def _attributes(owner: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    return [(name, getattr(owner, name)) for name in names]


def _parts_config(owner: Any) -> dict[str, Any]:
    return {"classifier": serialize(owner.classifier), "discriminator": serialize(owner.discriminator)}


def _with_parts(config: dict[str, Any], custom_objects: Any = None) -> dict[str, Any]:
    parts = {name: deserialize(config[name], custom_objects) for name in ("classifier", "discriminator")}
    return {**config, **parts}


def _check(mode: str, eps: float, band: Sequence[float], threshold: float | None, on: str) -> None:
    require_choice("mode of the manifold transform", mode, MODES)
    require_choice("place of the discriminator", on, SEEN)
    require_not_negative(eps=eps)
    check_band(band)
    require(
        threshold is None or (is_finite(threshold) and 0 <= threshold <= 1),
        f"threshold must be a number in [0, 1] or None. Received: threshold={threshold!r}.",
    )


def check_band(band: Any) -> None:
    """Refuse what is no range of probabilities."""
    require(
        isinstance(band, Sequence)
        and len(band) == 2
        and all(map(is_finite, band))
        and 0 <= band[0] <= band[1] <= 1,
        f"band must be (low, high) with 0 <= low <= high <= 1. Received: band={band!r}.",
    )
