"""Models on which images against a wrapped classifier are made."""

from __future__ import annotations

import keras

STATIC = "static"


def ways_of(model: keras.Model) -> dict[str, keras.Model]:
    """The models, by name, on which an attack on `model` should make images as well; none for most.

    A classifier that does something to its input first says so by a method `ways_to_attack`: `STATIC` is
    the classifier behind it, which knows nothing of that; the others have its outputs, and other gradients.
    """
    return getattr(model, "ways_to_attack", dict)()
