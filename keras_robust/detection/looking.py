"""What a classifier computes of images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_robust.attacks.compiling import on_rows
from keras_robust.models.observed import observed
from keras_robust.validation import check_images


def look(model: keras.Model, space: str, images: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Features, as `observed` shows them in a space, and logits of one batch after the other, as arrays.

    Raises:
        InputError: not images of this model, an unknown space, or a model that does not have it.
    """
    images = check_images(images, model.input_shape[1:])
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        features, logits = on_rows(
            model, ("observed", space), lambda: _looking(model, space), (batch,), (), "auto"
        )
        yield keras.tree.map_structure(keras.ops.convert_to_numpy, (features, logits))


def _looking(model: keras.Model, space: str) -> Any:
    shown = observed(model, space)
    return lambda images: tuple(shown(images, training=False))
