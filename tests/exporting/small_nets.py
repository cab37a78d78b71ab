"""Small nets to export, images for them, and an attack of one step."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_robust.models.latent import LatentClassifier

SHAPE = (8, 8, 1)


def convolutional(dtype="float32"):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(16, 3, padding="same", dtype=dtype),
            layers.BatchNormalization(dtype=dtype),
            layers.LeakyReLU(dtype=dtype),
            layers.MaxPooling2D(dtype=dtype),
            layers.Conv2D(32, 3, activation="relu", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            layers.Dense(64, activation="relu", dtype=dtype),
            layers.Dense(10, dtype="float32"),
        ]
    )


def latent_classifier(dtype="float32"):
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, dtype=dtype),
            layers.AveragePooling2D(2, dtype=dtype),
            layers.Flatten(dtype=dtype),
        ]
    )
    head = keras.Sequential([keras.Input(encoder.output_shape[1:]), layers.Dense(10, dtype="float32")])
    return LatentClassifier(encoder, head)


def functional(build):
    images = keras.Input(SHAPE)
    return keras.Model(images, layers.Dense(10)(layers.Flatten()(build(images))))


def spectrum(images):
    real, _ = ops.fft2((images[..., 0], ops.zeros_like(images[..., 0])))
    return real


def random_images(model, count=20):
    return np.random.default_rng(1).random((count, *model.input_shape[1:]), np.float32)


def push_down(model, x, y):
    """A tiny attack: one signed step along the analytic input direction that lowers the true logit."""
    images = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = keras.losses.sparse_categorical_crossentropy(y, model(images), from_logits=True)
    return np.clip(x + 0.15 * np.sign(tape.gradient(loss, images)), 0, 1)
