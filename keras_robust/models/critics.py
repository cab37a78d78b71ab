"""The critic of a latent: how much it looks like a draw from the prior."""

from __future__ import annotations

import keras
from keras import layers

from keras_robust.errors import require_count


def build_critic(dim: int, *, depth: int = 4, width: int = 512, logsigmoid: bool = False) -> keras.Model:
    """Codes `(B, dim)` to scores `(B,)`: `depth` affine layers of `width` with ReLU, and a last one.

    It computes in float32 under any policy: next to an encoder it is small.

    Args:
        dim: features of a code, >= 1.
        depth: hidden layers, >= 1.
        width: features of each, >= 1.
        logsigmoid: end in log sigmoid, as the authors' code does; such scores are below 0.

    Raises:
        InputError: an option is not as described.

    Source: ER-Classifier (ICCV 2021), supplement, and the authors' code (five affine layers).

    >>> build_critic(4).output_shape
    (None,)
    """
    require_count(dim=dim, depth=depth, width=width)
    codes = keras.Input((dim,), name="codes")
    features = codes
    for _ in range(depth):
        features = layers.Dense(width, activation="relu", kernel_initializer="he_normal", dtype="float32")(
            features
        )
    scores = layers.Reshape((), dtype="float32")(layers.Dense(1, dtype="float32")(features))
    if logsigmoid:
        scores = layers.Activation("log_sigmoid", dtype="float32")(scores)
    return keras.Model(codes, scores, name="critic")
