"""A classifier is an encoder and a head."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_robust")
class LatentClassifier(keras.Model):
    """A functional Keras classifier that can also hand out its latent.

    Args:
        encoder: built `keras.Model`, images `(B, H, W, C)` float32 in [0, 1] to a latent `(B, ...)`.
        head: built `keras.Model`, latent to logits `(B, K)` float32.
        name: name of the model.

    Calling it maps images to logits, so it serves, trains and exports like any Keras model.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model, name: str | None = None) -> None:
        images = keras.Input(encoder.input_shape[1:], name="images")
        super().__init__(images, head(encoder(images)), name=name)
        self.encoder = encoder
        self.head = head

    def latent_and_logits(self, images: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Latent `(B, ...)` and logits `(B, K)` of one forward pass."""
        latent = self.encoder(images, training=training)
        return latent, self.head(latent, training=training)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {"encoder": serialize(self.encoder), "head": serialize(self.head), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LatentClassifier:
        deserialize = keras.saving.deserialize_keras_object
        return cls(deserialize(config["encoder"]), deserialize(config["head"]), name=config["name"])
