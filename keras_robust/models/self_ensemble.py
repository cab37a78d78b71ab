"""Random self-ensemble: noise before every convolution, and predictions averaged over passes."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_robust.errors import require_count, require_not_negative
from keras_robust.layers import RandomNoise
from keras_robust.models.graph import flattened, rewire
from keras_robust.models.registry import wrapped_in, wrappers

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


@wrappers.register("self_ensemble")
def with_self_ensemble(
    model: keras.Model, *, first: float = 0.2, inner: float = 0.1, passes: int = 10
) -> keras.Model:
    """`model` with noise, its probabilities averaged over several passes.

    Every call draws anew. Attack it as it is: each gradient is then one over all `passes`, an expectation
    over transformation; the option `samples` of PGD and Auto-PGD takes still more.

    Args:
        model: built classifier of layers, images `(B, H, W, C)` in [0, 1] to logits `(B, K)`. Layers and
            variables are shared.
        first: deviation of the noise on the images, >= 0.
        inner: deviation of the noise before every convolution after the first, >= 0.
        passes: >= 1; they run side by side, in as much memory.

    Returns:
        The model, images to the logarithm of the mean probabilities.

    Raises:
        InputError: an option that is not as described, or a model without a graph of layers.

    Source: Liu et al. 2018, "Towards robust neural networks via random self-ensemble", algorithm 1.

    >>> import keras_robust as kr
    >>> with_self_ensemble(kr.models.build("small_cnn"), passes=3).output_shape
    (None, 10)
    """
    require_count(passes=passes)
    noisy = with_noise(model, first, inner)
    images = keras.Input(model.input_shape[1:], name="images")
    logits = noisy(ops.repeat(images, passes, axis=0))
    log_shares = ops.reshape(ops.log_softmax(logits, axis=-1), (-1, passes, logits.shape[-1]))
    ensemble = ops.logsumexp(log_shares, axis=1) - math.log(passes)
    options = {"first": first, "inner": inner, "passes": passes}
    return wrapped_in("self_ensemble", keras.Model(images, ensemble, name=model.name), options)


def with_noise(model: keras.Model, first: float, inner: float) -> keras.Model:
    """`model` on noisy images and with noise before every convolution but the first; see above."""
    require_not_negative(first=first, inner=inner)
    graph = flattened(model)
    _, *later = [layer for layer in graph.layers if isinstance(layer, _CONVOLUTIONS)] or [None]

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation in later:
            args = (RandomNoise(inner, dtype=operation.dtype_policy)(args[0]), *args[1:])
        return operation(*args, **kwargs)

    images = keras.Input(model.input_shape[1:], name="images")
    noisy = rewire(graph, call)(RandomNoise(first, dtype="float32")(images))
    return keras.Model(images, noisy, name=model.name)
