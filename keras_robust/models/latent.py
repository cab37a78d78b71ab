"""A classifier is an encoder and a head."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.errors import require

serialize = keras.saving.serialize_keras_object
deserialize = keras.saving.deserialize_keras_object


@keras.saving.register_keras_serializable("keras_robust")
class LatentClassifier(keras.Model):
    """A functional Keras classifier that can also hand out its latent.

    Args:
        encoder: built `keras.Model`, images `(B, H, W, C)` float32 in [0, 1] to a latent `(B, ...)`.
        head: built `keras.Model`, latent to logits `(B, K)` float32.
        name: name of the model.

    Calling it maps images to logits, so it serves, trains and exports like any Keras model.

    Attributes:
        encoder: images to latent.
        head: latent to logits; None if the logits need more than the latent (`JointClassifier`).
        architecture: what `build` was asked for, `{"name": ..., **options}`, or None. Saved in `.keras`.

    Example:
        >>> import keras, numpy as np
        >>> encoder = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
        >>> head = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        >>> classifier = LatentClassifier(encoder, head)
        >>> latent, logits = classifier.latent_and_logits(np.zeros((2, 8, 8, 1), "float32"))
        >>> latent.shape, logits.shape
        (TensorShape([2, 64]), TensorShape([2, 10]))
    """

    encoder: keras.Model
    head: Any
    architecture: dict[str, Any] | None = None

    def __init__(self, encoder: keras.Model, head: keras.Model, name: str | None = None) -> None:
        images = keras.Input(encoder.input_shape[1:], name="images")
        super().__init__(images, head(encoder(images)), name=name)
        self.encoder = encoder
        self.head = head

    def latent_and_logits(self, images: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Latent `(B, ...)` and logits `(B, K)` of one forward pass."""
        latent = self.encoder(images, training=training)
        return latent, self.head(latent, training=training)

    def remember(self, architecture: dict[str, Any] | None) -> None:
        """Note what the classifier was built from, as plain data."""
        # Past Keras' attribute tracking, which would wrap the dict and count it among the state.
        object.__setattr__(self, "architecture", architecture)

    def parts(self) -> dict[str, keras.Model]:
        """The models it is made of, by the name of the constructor's argument."""
        return {"encoder": self.encoder, "head": self.head}

    def get_config(self) -> dict[str, Any]:
        parts = {name: serialize(part) for name, part in self.parts().items()}
        return {**parts, "name": self.name, "architecture": self.architecture}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LatentClassifier:
        config = dict(config)
        architecture, name = config.pop("architecture", None), config.pop("name")
        parts = {part: deserialize(value, custom_objects) for part, value in config.items()}
        classifier = cls(**parts, name=name)
        classifier.remember(architecture)
        return classifier


@keras.saving.register_keras_serializable("keras_robust")
class JointClassifier(LatentClassifier):
    """A classifier whose logits are not a function of its latent alone.

    A connection that skips the latent, or a layer with weights that works on both of its sides, leaves
    nothing that could be called a head: `head` is None. The rest holds as for every `LatentClassifier`;
    `latent_and_logits` is one pass of the joint model.

    Args:
        joint: built `keras.Model`, images `(B, H, W, C)` float32 in [0, 1] to `[latent, logits]`.
        name: name of the model.

    >>> import keras, numpy as np
    >>> images = keras.Input((4, 4, 1))
    >>> pixels = keras.layers.Flatten()(images)
    >>> latent = keras.layers.Dense(5, activation="relu")(pixels)
    >>> logits = keras.layers.Dense(3)(keras.layers.Concatenate()([latent, pixels]))
    >>> classifier = JointClassifier(keras.Model(images, [latent, logits]))
    >>> classifier(np.zeros((2, 4, 4, 1), "float32")).shape
    TensorShape([2, 3])
    """

    def __init__(self, joint: keras.Model, name: str | None = None) -> None:
        images = keras.Input(joint.input_shape[1:], name="images")
        # Past LatentClassifier, whose graph is the encoder followed by the head.
        super(LatentClassifier, self).__init__(images, joint(images)[1], name=name)
        self.joint = joint
        self.encoder = keras.Model(joint.inputs[0], joint.outputs[0], name="encoder")
        self.head = None

    def latent_and_logits(self, images: Any, training: bool | None = None) -> tuple[Any, Any]:
        latent, logits = self.joint(images, training=training)
        return latent, logits

    def parts(self) -> dict[str, keras.Model]:
        return {"joint": self.joint}


def require_latent(what: str, model: Any) -> None:
    """Refuse, for what needs it, a model that hands out no latent."""
    require(
        hasattr(model, "latent_and_logits"),
        f"{what} needs the latent of a LatentClassifier: make one with keras_robust.models.split(model, "
        f"at=<layer>). Received: {model!r}.",
    )


def require_head(what: str, model: Any) -> None:
    """Refuse, for what needs it, a model whose logits are not a function of a latent alone."""
    require_latent(what, model)
    require(
        getattr(model, "head", None) is not None,
        f"{what} needs a head, logits that are a function of the latent alone. Cut the classifier at another "
        "layer, keras_robust.models.split(model, at=<layer>), or take it out of what transforms its input. "
        f"Received: {model!r}.",
    )
