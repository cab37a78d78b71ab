"""What an evaluation is made on: the threat model and the examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_robust import data
from keras_robust.errors import InputError, require
from keras_robust.models.valid import check_model
from keras_robust.threat import ThreatModel
from keras_robust.validation import check_images, check_labels


class Examples(NamedTuple):
    """Images `(N, ...)` float32, labels `(N,)` int32, and which of their source they are `(N,)`."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def dataset_of(model: keras.Model) -> str:
    """The dataset on the model's card."""
    dataset = getattr(getattr(model, "card", None), "dataset", None)
    require(bool(dataset), "The model's card names no dataset: give (images, labels) or a dataset's name.")
    return str(dataset)


def threat_of(
    model: keras.Model, eps: float | None, norm: str | None, step_size: float | None
) -> dict[str, Any]:
    """The threat model asked for; what is left open is the card's, if that is in the same norm.

    Its step size grows with eps.
    """
    its = getattr(getattr(model, "card", None), "threat", None) or {}
    norm = norm or its.get("norm", "linf")
    ThreatModel(norm)
    known = its if norm == its.get("norm") else {}
    eps = known.get("eps") if eps is None else eps
    if eps is None:
        carries = (
            f"Its card is of {its['norm']} eps {its['eps']:g}" if its else "The model carries no threat model"
        )
        raise InputError(f"{carries}: give eps for {norm}, for example eps=8/255 (--eps 0.03).")
    ThreatModel(norm, eps)
    if step_size is None and known.get("step_size") and eps > 0 and known["eps"] > 0:
        step_size = known["step_size"] * (eps / known["eps"])
    return {"norm": norm, "eps": float(eps), "step_size": None if step_size is None else float(step_size)}


def examples_of(model: keras.Model, source: Any, examples: int | None, seed: int) -> Examples:
    """A random subset of a dataset's test set, or of arrays, checked against the model; and the model."""
    check_model(model)
    if isinstance(source, str):
        images, labels = data.load(source, "test", raw=True)
    elif isinstance(source, (tuple, list)) and len(source) == 2:
        images = check_images(source[0], shape=model.input_shape[1:])
        labels = check_labels(source[1], model.output_shape[-1], len(images))
    else:
        raise InputError(
            f"Give (images, labels) or the name of a dataset. Received: {type(source).__name__}. "
            f"Datasets: {', '.join(data.datasets)}."
        )
    indices = data.subset(len(labels), examples, seed)
    chosen = data.Arrays(images[indices], labels[indices]).as_float()
    checked = check_images(chosen.images, shape=model.input_shape[1:])
    return Examples(checked, check_labels(chosen.labels, model.output_shape[-1], len(checked)), indices)
