"""Encoders to a code of few dimensions, with small classifiers on it: the networks of ER-Classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_robust.errors import require, require_count
from keras_robust.layers import BatchNormalization, CodeMean
from keras_robust.models.assembly import assemble, image_input, require_sizes
from keras_robust.models.latent import LatentClassifier
from keras_robust.models.registry import architectures
from keras_robust.models.vgg import vgg_features

# Of the pixels of ImageNet.
_MEAN, _VARIANCE = (0.485, 0.456, 0.406), (0.229**2, 0.224**2, 0.225**2)


@architectures.register("er_cnn")
def er_cnn(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    embedding: int = 4,
    filters: int = 128,
    depth: int = 4,
    reduce: bool = False,
    hidden: Sequence[int] = (500, 256),
    variational: bool = False,
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """Strided convolutions to a code, and two hidden affine layers on it.

    `depth` convolutions 4×4 of stride 2, padding 1 and without bias, of n, 2n, 4n, ... channels, each but the
    first with batch normalisation, and ReLU; then an affine layer to the code. The classifier has affine
    layers with batch normalisation and ReLU. Images are shifted to [-1, 1] inside.

    ER-Classifier has embedding, filters, depth = 4, 128, 4 on MNIST, and 16, 128, 5 with `reduce` on STL-10.

    Args:
        input_shape: `(height, width, channels)`, at least 2^depth in height and width (three times that with
            `reduce`).
        num_classes: number of logits.
        embedding: features of the code, which is the latent.
        filters: channels of the first convolution, n.
        depth: number of these convolutions.
        reduce: follow them by one 3×3, of stride 2 without padding, of as many channels as the last.
        hidden: units of the hidden affine layers of the classifier.
        variational: describe the code by means and log-variances; the latent is the mean (VAE-CLA).
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    Raises:
        InputError: an option is not as described.

    Source: ER-Classifier (ICCV 2021), supplement, and the authors' code.
    """
    require_count(embedding=embedding, filters=filters, depth=depth)
    require_sizes(hidden=hidden)
    images = image_input(input_shape, smallest=2**depth * (3 if reduce else 1), dtype=dtype)
    features = layers.Rescaling(2.0, offset=-1.0, dtype=dtype)(images)
    for index in range(depth):
        features = layers.ZeroPadding2D(1, dtype=dtype)(features)
        features = _convolve(features, filters * 2**index, 4, normalized=index > 0, dtype=dtype)
    if reduce:
        features = _convolve(features, filters * 2 ** (depth - 1), 3, normalized=True, dtype=dtype)
    top = [layer for units in hidden for layer in _normalized_dense(units, dtype)]
    return assemble(
        images, _code(features, embedding, variational, dtype), num_classes, head, name="er_cnn", hidden=top
    )


@architectures.register("er_vgg")
def er_vgg(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    embedding: int = 16,
    depth: int = 19,
    batch_norm: bool = True,
    width_multiplier: float = 1.0,
    hidden: int = 512,
    dropout: float = 0.5,
    variational: bool = False,
    head: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> LatentClassifier:
    """The convolutions of VGG to a code, and three hidden affine layers on it.

    The classifier is FC, dropout, FC, ReLU, dropout, FC, ReLU, FC. Images are normalised by the mean and
    deviation of ImageNet's pixels inside.

    ER-Classifier has depth, embedding = 19, 16 on CIFAR-10 and 16, 20 on Tiny ImageNet. There its VGG-19 is
    without batch normalisation and starts from trained weights, from which it is not told; from scratch it
    may not start to learn.

    Args:
        input_shape: `(height, width, 3)`, any size; the last feature maps are flattened.
        num_classes: number of logits.
        embedding: features of the code, which is the latent.
        depth, batch_norm, width_multiplier: as in `vgg`.
        hidden: units of the hidden affine layers of the classifier.
        dropout: share of units dropped in training, in [0, 1).
        variational: describe the code by means and log-variances; the latent is the mean (VAE-CLA).
        head: None, or a head of fixed centres, `{"name": "cosine_centers", "dim": ...}`; see `models.heads`.
        dtype: Keras dtype policy of all layers but the last.

    Raises:
        InputError: an option is not as described.

    Source: ER-Classifier (ICCV 2021), supplement, and the authors' code.
    """
    require_count(embedding=embedding, hidden=hidden)
    require(
        isinstance(dropout, (int, float)) and 0 <= dropout < 1,
        f"dropout must be in [0, 1); received {dropout!r}.",
    )
    images = image_input(input_shape, smallest=1, dtype=dtype)
    require(
        images.shape[-1] == len(_MEAN),
        f"input_shape must have 3 channels, red, green and blue; received {input_shape!r}.",
    )
    features = layers.Normalization(mean=_MEAN, variance=_VARIANCE, dtype=dtype)(images)
    features = vgg_features(features, depth, batch_norm, width_multiplier, dtype)
    top = [
        layers.Dense(hidden, dtype=dtype),
        layers.Dropout(dropout, dtype=dtype),
        layers.Dense(hidden, activation="relu", dtype=dtype),
        layers.Dropout(dropout, dtype=dtype),
        layers.Dense(hidden, activation="relu", dtype=dtype),
    ]
    code = _code(features, embedding, variational, dtype)
    return assemble(images, code, num_classes, head, name=f"er_vgg_{depth}", hidden=top)


def _convolve(
    x: keras.KerasTensor, channels: int, size: int, *, normalized: bool, dtype: str | None
) -> keras.KerasTensor:
    x = layers.Conv2D(channels, size, strides=2, use_bias=False, kernel_initializer="he_normal", dtype=dtype)(
        x
    )
    if normalized:
        x = BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype)(x)
    return layers.ReLU(dtype=dtype)(x)


def _code(
    features: keras.KerasTensor, embedding: int, variational: bool, dtype: str | None
) -> keras.KerasTensor:
    features = layers.Flatten(dtype=dtype)(features)
    if not variational:
        return layers.Dense(embedding, dtype=dtype, name="embedding")(features)
    moments = layers.Dense(2 * embedding, dtype=dtype, name="moments")(features)
    return CodeMean(dtype="float32", name="embedding")(moments)


def _normalized_dense(units: int, dtype: str | None) -> list[keras.layers.Layer]:
    return [
        layers.Dense(units, kernel_initializer="he_normal", dtype=dtype),
        BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype),
        layers.ReLU(dtype=dtype),
    ]
