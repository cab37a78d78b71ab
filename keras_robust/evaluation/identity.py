"""What tells one model, or one set of examples, from another."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np

from keras_robust.models.precision import in_float32


def identity(model: keras.Model) -> dict[str, str]:
    """What tells a model from others: its weights, and for a variant, which shares them, its wrapper."""
    wrapper = getattr(model, "wrapper", None)
    told = {"wrapper": json.dumps(wrapper, sort_keys=True)} if wrapper else {}
    return {"weights": digest(*in_float32(model).weights), **told}


def digest(*values: Any) -> str:
    """What tells the weights of two models, or two sets of examples, apart."""
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()
