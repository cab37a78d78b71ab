"""Discriminators of latents by name: clean or adversarial, and of which class.

Each is a functional model from a latent `(B, ...)` to a mapping:

- "manifold" `(B,)`: the logit of P(clean);
- "classes" `(B, K)`: logits of the classes; missing if `num_classes` is None.

They compute in float32 under any policy: next to the classifier they are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import layers

from keras_robust.errors import require, require_count
from keras_robust.layers import BatchNormalization
from keras_robust.models.assembly import require_sizes
from keras_robust.models.latent import require_latent
from keras_robust.models.registry import companions
from keras_robust.models.residual import FAN_OUT_NORMAL
from keras_robust.plain import plain
from keras_robust.registry import Registry
from keras_robust.schema import check_options

discriminators: Registry[Callable[..., Discriminator]] = Registry("discriminator")

SEEN = ("logits", "latent")  # what of a classifier a discriminator may look at

# A 3×3 convolution of a 1×1 map sees its centre tap only: a dense layer, of the convolution's variance.
_CENTER_TAP = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0 / 9.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}


@companions.register("discriminator")
def build_discriminator(
    name: str, input_shape: Sequence[int], num_classes: int | None = None, **options: Any
) -> Discriminator:
    """The discriminator of a registered name; see the module's docstring for its outputs.

    Args:
        name: a name in `discriminators`.
        input_shape: shape of one latent, `(F,)` or more axes, which are flattened.
        num_classes: classes of the second output; None: no such output.
        **options: of that builder.

    Raises:
        InputError: unknown name or option, or a value that it cannot take.

    Source: ATLD (ICLR 2021 submission), section 3.3.

    >>> sorted(build_discriminator("residual_mlp", (10,), num_classes=10).output)
    ['classes', 'manifold']
    """
    build = discriminators[name]
    check_options(f"discriminator {name!r}", options, build, supplied=("input_shape", "num_classes"))
    built = build(input_shape, num_classes, **options)
    architecture = {"name": name, "input_shape": input_shape, "num_classes": num_classes, **options}
    object.__setattr__(built, "architecture", plain(architecture))  # past Keras' attribute tracking
    return built


@keras.saving.register_keras_serializable("keras_robust")
class Discriminator(keras.Model):
    """A functional model that remembers what `build_discriminator` was asked for, and is saved as that.

    Attributes:
        architecture: the arguments of `build_discriminator`, as plain data.
    """

    architecture: dict[str, Any]

    def get_config(self) -> dict[str, Any]:
        return dict(self.architecture)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Discriminator:
        return build_discriminator(**config)


@discriminators.register("residual_mlp")
def residual_mlp(
    input_shape: Sequence[int],
    num_classes: int | None = None,
    *,
    depth: int = 2,
    width: int = 256,
    batch_norm: bool = False,
) -> Discriminator:
    """An affine layer, `depth` pre-activation units of `width` features, and the outputs.

    Args:
        input_shape, num_classes: as in `build_discriminator`.
        depth: number of units, >= 1; each has two affine layers.
        width: features, >= 1.
        batch_norm: normalise before each ReLU. Without it the discriminator sees each latent by itself.

    Raises:
        InputError: an option is not as described.
    """
    require_count(depth=depth, width=width)
    latent, features = _entry(input_shape)
    features = layers.Dense(width, kernel_initializer="he_normal", dtype="float32")(features)
    for _ in range(depth):
        features = _unit(features, width, batch_norm, "he_normal")
    return _with_outputs(latent, _activate(features, batch_norm), num_classes, name="residual_mlp")


@discriminators.register("wide_resnet")
def wide_resnet(
    input_shape: Sequence[int], num_classes: int | None = None, *, depth: int = 28, width: int = 5
) -> Discriminator:
    """WRN-depth-width on 1×1 maps, with batch normalisation.

    On a 1×1 map a 3×3 convolution is its centre tap, strides and pooling do nothing: what is left are dense
    layers of 16, then 16, 32 and 64 times `width` features in (depth - 4) / 6 units each.

    Args:
        input_shape, num_classes: as in `build_discriminator`.
        depth: 6n + 4, n >= 1.
        width: the factor of the features.

    Raises:
        InputError: an option is not as described.

    Source: the authors' code of ATLD, whose discriminator is a WRN-28-5.
    """
    require_count(depth=depth, width=width)
    require(depth >= 10 and depth % 6 == 4, f"depth must be 6n + 4 with n >= 1; received {depth!r}.")
    latent, features = _entry(input_shape)
    features = _dense(features, 16, _CENTER_TAP)
    for units in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            features = _unit(features, units, True, _CENTER_TAP)
    return _with_outputs(latent, _activate(features, True), num_classes, name=f"wide_resnet_{depth}_{width}")


def _entry(input_shape: Sequence[int]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    require_sizes(input_shape=input_shape)
    latent = keras.Input(tuple(input_shape), name="latent")
    return latent, layers.Flatten(dtype="float32")(latent)


def _unit(
    features: keras.KerasTensor, units: int, batch_norm: bool, initializer: str | Mapping[str, Any]
) -> keras.KerasTensor:
    """A pre-activation unit; a shortcut that changes the number of features starts activated."""
    activated = _activate(features, batch_norm)
    branch = _dense(activated, units, initializer, biased=not batch_norm)
    branch = _dense(_activate(branch, batch_norm), units, initializer, biased=not batch_norm)
    if features.shape[-1] != units:
        features = _dense(activated, units, FAN_OUT_NORMAL)
    return layers.Add(dtype="float32")([features, branch])


def _activate(features: keras.KerasTensor, batch_norm: bool) -> keras.KerasTensor:
    if batch_norm:
        features = BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float32")(features)
    return layers.ReLU(dtype="float32")(features)


def _dense(
    features: keras.KerasTensor, units: int, initializer: str | Mapping[str, Any], biased: bool = False
) -> keras.KerasTensor:
    return layers.Dense(units, use_bias=biased, kernel_initializer=initializer, dtype="float32")(features)


def _with_outputs(
    latent: keras.KerasTensor, features: keras.KerasTensor, num_classes: int | None, name: str
) -> Discriminator:
    score = layers.Dense(1, dtype="float32", name="manifold")(features)
    outputs = {"manifold": layers.Reshape((), dtype="float32", name="score")(score)}
    if num_classes is not None:
        require_count(num_classes=num_classes)
        outputs["classes"] = layers.Dense(num_classes, dtype="float32", name="classes")(features)
    return Discriminator(latent, outputs, name=name)


def seen_shape(classifier: keras.Model, on: str) -> tuple[int, ...]:
    """Shape of the "logits" or the "latent" of one image.

    Raises:
        InputError: a classifier without latent where it is asked for.
    """
    if on == "logits":
        return tuple(classifier.output_shape[1:])
    require_latent("A discriminator on the latent", classifier)
    return tuple(classifier.encoder.output_shape[1:])


def kept_beside(model: keras.Model) -> keras.Model:
    """The discriminator that was trained with a classifier and is kept beside it.

    Raises:
        InputError: there is none.
    """
    kept = getattr(model, "companions", {})
    require("discriminator" in kept, f"No discriminator is kept beside {model.name!r}.")
    return kept["discriminator"]


def check_discriminator(discriminator: Any, classifier: Any, on: str) -> None:
    """Refuse a discriminator that is not built, or does not fit the classifier."""
    require(
        isinstance(discriminator, keras.Model) and discriminator.built,
        f"The discriminator must be a built keras.Model. Received: {discriminator!r}.",
    )
    shape, taken = seen_shape(classifier, on), tuple(discriminator.input_shape[1:])
    require(
        taken == shape and isinstance(discriminator.output, Mapping) and "manifold" in discriminator.output,
        f"The discriminator must take the {on} of the classifier, {shape}, and give a mapping with "
        f'"manifold"; see build_discriminator. Received: {discriminator.name!r}, which takes {taken}.',
    )
