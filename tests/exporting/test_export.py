from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_nets import convolutional, functional, latent_classifier, random_images, spectrum

from keras_robust.errors import InputError
from keras_robust.exporting import export, load_exported


def standardised(images):
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    deviation = ops.std(images, axis=(1, 2, 3), keepdims=True)
    return layers.Conv2D(4, 3, activation="gelu")((images - mean) / ops.maximum(deviation, 1 / 8))


def residual(images):
    wide = layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    inner = layers.ReLU()(layers.BatchNormalization()(wide))
    added = layers.Add()([wide, layers.Conv2D(8, 3, padding="same")(inner)])
    return layers.GlobalAveragePooling2D()(added)


MODELS = {
    "convolutional": convolutional,
    "standardised": lambda: functional(standardised),
    "residual": lambda: functional(residual),
    "latent_classifier": latent_classifier,
    "points": lambda: keras.Sequential([keras.Input((2,)), layers.Dense(8, "relu"), layers.Dense(2)]),
}


@pytest.mark.parametrize("name", ["model.tflite", "saved"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_float32_export_returns_the_same_logits_for_any_batch_size(tmp_path, build, name):
    model = build()
    images = random_images(model)
    path = export(model, tmp_path / name)
    assert path == tmp_path / name
    classify = load_exported(path)
    for count in (1, 20, 7):
        logits = classify(images[:count])
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, model(images[:count], training=False), atol=1e-4)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_int8_stays_near_the_model(tmp_path, build):
    model = build()
    images = random_images(model)
    logits = np.asarray(model(images, training=False))
    classify = load_exported(export(model, tmp_path / "m.tflite", "int8", images))
    assert np.abs(classify(images) - logits).max() <= 0.1 * np.ptp(logits)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
@pytest.mark.parametrize("build", [convolutional, latent_classifier])
def test_reduced_precision_is_exported_as_float32(tmp_path, build, dtype):
    reduced, full = build(dtype), build()
    full.set_weights(reduced.get_weights())
    images = random_images(full)
    logits = load_exported(export(reduced, tmp_path / "m.tflite"))(images)
    np.testing.assert_allclose(logits, full(images, training=False), atol=1e-4)


def test_reduced_precision_by_the_global_policy(tmp_path):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        reduced = latent_classifier("mixed_bfloat16")
        path = export(reduced, tmp_path / "m.tflite")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(previous)
    full = latent_classifier()
    full.set_weights(reduced.get_weights())
    images = random_images(full)
    np.testing.assert_allclose(load_exported(path)(images), full(images), atol=1e-4)


def test_conversion_is_silent(tmp_path, model, capfd, digits):
    export(model, tmp_path / "m.tflite", "int8", digits[0][:10])
    with pytest.raises(InputError):
        export(functional(spectrum), tmp_path / "n.tflite")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
