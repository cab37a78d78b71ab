"""What a model must be to be attacked or defended."""

from __future__ import annotations

from typing import Any

from keras_robust.errors import InputError, require
from keras_robust.models.graph import ends_in_softmax
from keras_robust.validation import PROBABILITIES


def check_model(model: Any) -> None:
    """Refuse what cannot be attacked, without a pass through it.

    Args:
        model: a built `keras.Model` with one input and one output whose shapes it knows.

    Raises:
        InputError: anything else, or a last layer that turns logits into probabilities.
    """
    require(
        hasattr(model, "built") and model.built,
        f"The model must be a built keras.Model. Received: {model!r}.",
    )
    try:
        shapes = [model.input_shape, model.output_shape]
    except (AttributeError, NotImplementedError) as error:
        raise InputError(
            "The model must know its shapes, as those do that are made of a keras.Input: wrap it, "
            f"keras.Sequential([keras.Input(shape), model]). Received: {model!r}."
        ) from error
    require(
        all(isinstance(shape, tuple) for shape in shapes),
        f"The model must have one input and one output. Received: input {shapes[0]}, output {shapes[1]}.",
    )
    require(
        len(shapes[1]) == 2 and shapes[1][1] is not None and shapes[1][1] >= 2,
        f"A classifier must return logits (N, K) with K >= 2 classes, received shape {shapes[1]}.",
    )
    require(
        not ends_in_softmax(model),
        f"{PROBABILITIES} Its last layer is a softmax: remove it. Received: {model!r}.",
    )
