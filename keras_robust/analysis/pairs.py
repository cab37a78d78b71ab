"""Images beside their adversarial versions, and what a classifier makes of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_robust.attacks import Attack
from keras_robust.attacks.seen import Seen, see
from keras_robust.errors import require
from keras_robust.models.valid import check_model
from keras_robust.validation import check_images, check_labels, check_logits


@dataclass(frozen=True)
class Pairs:
    """Images `(N, ...)`, their labels `(N,)`, adversarial versions, and what is seen of both."""

    images: np.ndarray
    labels: np.ndarray
    adversarial: np.ndarray
    clean: Seen
    attacked: Seen

    @property
    def right(self) -> np.ndarray:
        """Which images are classified rightly without an attack, `(N,)` bool."""
        return self.clean.classes == self.labels

    @property
    def successful(self) -> np.ndarray:
        """Where the attack succeeded: right without it, wrong with it."""
        return self.right & (self.attacked.classes != self.labels)

    @property
    def failed(self) -> np.ndarray:
        """Where the attack failed: right with and without it."""
        return self.right & (self.attacked.classes == self.labels)


def pairs(model: keras.Model, examples: tuple[Any, Any], attack: Any, seed: int = 0) -> Pairs:
    """Attack the examples, or take adversarial images as given, and look at both.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`.
        examples: images `(N, ...)` float in [0, 1] and labels `(N,)`.
        attack: an `Attack`, or adversarial images shaped like the images.
        seed: of the attack.

    Raises:
        InputError: arrays of a wrong kind, neither an attack nor images, or a model that outputs
            probabilities.
    """
    check_model(model)
    shape = model.input_shape[1:]
    images = check_images(examples[0], shape)
    labels = check_labels(examples[1], model.output_shape[-1], len(images))
    clean = see(model, images)
    check_logits(clean.logits)
    if isinstance(attack, Attack):
        adversarial = attack(model, images, labels, seed=seed)
    else:
        require(attack is not None, "Give an attack, or adversarial images. Received: None.")
        adversarial = check_images(attack, shape)
        require(
            len(adversarial) == len(images),
            f"Give one adversarial image for each of {len(images)}. Received: {len(adversarial)}.",
        )
    return Pairs(images, labels, adversarial, clean, see(model, adversarial))
