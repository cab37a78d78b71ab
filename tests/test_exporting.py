from __future__ import annotations

import json
import random
import resource
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.datasets import load_digits

from keras_robust.errors import InputError
from keras_robust.exporting import (
    QUANTIZATIONS,
    ExportCheck,
    ExportCheckError,
    check_export,
    export,
    load_exported,
)
from keras_robust.exporting.checking import MIN_AGREEMENT
from keras_robust.models.latent import LatentClassifier

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return (images / 16).reshape(-1, *SHAPE).astype(np.float32), labels.astype(np.int32)


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


@pytest.fixture(scope="module")
def model(digits):
    """Trained, because only a trained net has margins that int8 must keep."""
    random.seed(0)
    model = convolutional()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(*digits, batch_size=64, epochs=12, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def exports(model, digits, tmp_path_factory):
    """The trained model in each precision."""
    room = tmp_path_factory.mktemp("exports")
    paths = {"saved_model": export(model, room / "saved"), "float32": export(model, room / "float32.tflite")}
    for quantize in QUANTIZATIONS:
        calibration = digits[0][:100] if quantize == "int8" else None
        paths[quantize] = export(model, room / f"{quantize}.tflite", quantize, calibration)
    return paths


def functional(build):
    images = keras.Input(SHAPE)
    return keras.Model(images, layers.Dense(10)(layers.Flatten()(build(images))))


def standardised(images):
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    deviation = ops.std(images, axis=(1, 2, 3), keepdims=True)
    return layers.Conv2D(4, 3, activation="gelu")((images - mean) / ops.maximum(deviation, 1 / 8))


def residual(images):
    wide = layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    inner = layers.ReLU()(layers.BatchNormalization()(wide))
    added = layers.Add()([wide, layers.Conv2D(8, 3, padding="same")(inner)])
    return layers.GlobalAveragePooling2D()(added)


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


MODELS = {
    "convolutional": convolutional,
    "standardised": lambda: functional(standardised),
    "residual": lambda: functional(residual),
    "latent_classifier": latent_classifier,
    "points": lambda: keras.Sequential([keras.Input((2,)), layers.Dense(8, "relu"), layers.Dense(2)]),
}


def random_images(model, count=20):
    return np.random.default_rng(1).random((count, *model.input_shape[1:]), np.float32)


def push_down(model, x, y):
    """A tiny attack: one signed step along the analytic input direction that lowers the true logit."""
    import tensorflow as tf

    images = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = keras.losses.sparse_categorical_crossentropy(y, model(images), from_logits=True)
    return np.clip(x + 0.15 * np.sign(tape.gradient(loss, images)), 0, 1)


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


@pytest.mark.parametrize("precision", MIN_AGREEMENT)
def test_a_trained_classifier_passes_the_check(exports, model, digits, precision):
    check = check_export(exports[precision], model, digits[0][:600], digits[1][:600], attack=push_down)
    assert check.passed and not check.failures
    assert check.precision == precision and check.examples == 600
    assert check.clean_accuracy > 95
    assert check.robust_accuracy < check.clean_accuracy - 10  # else the replay shows nothing


def test_the_default_attack_is_pgd(exports, model, digits):
    check = check_export(exports["float32"], model, digits[0][:100], digits[1][:100], eps=0.2)
    assert check.robust_accuracy < check.clean_accuracy - 10


def test_the_numbers_are_those_of_the_definition(exports, model, digits):
    x, y = digits[0][:200], digits[1][:200]
    check = check_export(exports["int8"], model, x, y, attack=push_down, strict=False)
    classify, attacked = load_exported(exports["int8"]), push_down(model, x, y)
    ours, theirs = np.argmax(model(x), -1), classify(x).argmax(-1)
    assert check.agreement == pytest.approx(100 * np.mean(ours == theirs))
    assert check.clean_accuracy == pytest.approx(100 * np.mean(ours == y))
    assert check.exported_clean_accuracy == pytest.approx(100 * np.mean(theirs == y))
    assert check.robust_accuracy == pytest.approx(100 * np.mean(np.argmax(model(attacked), -1) == y))
    assert check.exported_robust_accuracy == pytest.approx(100 * np.mean(classify(attacked).argmax(-1) == y))


def test_quantization_shrinks_the_file(exports):
    size = {precision: path.stat().st_size for precision, path in exports.items()}
    assert size["int8"] < size["float16"] < size["float32"] and size["int8"] < 0.5 * size["float32"]
    assert size["dynamic"] < 0.5 * size["float32"]


@pytest.mark.parametrize("precision", ["saved_model", "int8"])
def test_an_export_of_another_model_fails_the_check(exports, digits, precision):
    other, x, y = convolutional(), digits[0][:100], digits[1][:100]
    check = check_export(exports[precision], other, x, y, attack=push_down, strict=False)
    assert not check.passed and "label agreement" in check.failures[0]
    with pytest.raises(ExportCheckError, match="does not match its model") as error:
        check_export(exports[precision], other, x, y, attack=push_down)
    assert error.value.check == check
    assert f"{check.agreement:.2f}" in str(error.value) and f"{check.robust_accuracy:.2f}" in str(error.value)


def numbers(**changes):
    same = {"agreement": 100.0, "clean_accuracy": 98.0, "exported_clean_accuracy": 98.0}
    robust = {"robust_accuracy": 58.0, "exported_robust_accuracy": 58.0}
    return ExportCheck(**{"path": "m", "precision": "float32", "examples": 1000, **same, **robust, **changes})


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"agreement": 99.5}, True),
        ({"agreement": 99.4}, False),
        ({"agreement": 99.4, "precision": "float16"}, False),
        ({"agreement": 99.4, "precision": "saved_model"}, False),
        ({"agreement": 98.0, "precision": "int8"}, True),
        ({"agreement": 97.9, "precision": "int8"}, False),
        ({"agreement": 97.9, "precision": "dynamic"}, False),
        ({"exported_robust_accuracy": 56.0}, True),
        ({"robust_accuracy": 57.1, "exported_robust_accuracy": 55.1}, True),
        ({"exported_robust_accuracy": 55.9}, False),
        ({"exported_robust_accuracy": 60.1}, False),
    ],
)
def test_the_limits_of_the_check(changes, passed):
    check = numbers(**changes)
    assert check.passed is passed and bool(check.failures) is not passed
    told = json.loads(check.to_json())
    assert told["passed"] is passed and told["agreement"] == check.agreement
    assert f"{check.exported_robust_accuracy:.2f}" in str(check)


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


def spectrum(images):
    real, _ = ops.fft2((images[..., 0], ops.zeros_like(images[..., 0])))
    return real


@pytest.mark.parametrize(
    ("build", "quantize", "names"),
    [
        (spectrum, None, ["Complex", "FFT2D"]),
        (spectrum, "int8", ["Complex", "FFT2D"]),
        (layers.Resizing(4, 4, interpolation="bicubic"), "dynamic", ["ResizeBicubic"]),
    ],
)
def test_flex_ops_are_refused_by_name(tmp_path, build, quantize, names):
    model = functional(build)
    calibration = random_images(model) if quantize == "int8" else None
    with pytest.raises(InputError, match="flex ops") as error:
        export(model, tmp_path / "m.tflite", quantize, calibration)
    for name in names:
        assert name in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_file_with_flex_ops_from_elsewhere_does_not_run(tmp_path):
    model = functional(spectrum)
    model.export(tmp_path / "m.tflite", format="litert", verbose=False)
    with pytest.raises(InputError, match="does not run"):
        load_exported(tmp_path / "m.tflite")(random_images(model))


def test_integer_input_and_output_are_converted(tmp_path, model, digits):
    import tensorflow as tf

    images = digits[0][:50]
    model.export(
        tmp_path / "m.tflite",
        format="litert",
        verbose=False,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image[None]] for image in images),
        inference_input_type=tf.int8,
        inference_output_type=tf.uint8,
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    )
    logits = load_exported(tmp_path / "m.tflite")(images)
    expected = np.asarray(model(images))
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize("name", ["model.tflite", "saved"])
def test_probabilities_are_refused(tmp_path, name):
    model = functional(lambda images: images)
    model = keras.Model(model.input, layers.Softmax()(model.output))
    with pytest.raises(InputError, match="probabilities where logits are expected"):
        export(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".onnx", ".h5", ".keras", ".pb", ".TFLITE"])
def test_other_endings_are_refused(tmp_path, model, ending):
    with pytest.raises(InputError, match="tflite") as error:
        export(model, tmp_path / f"model{ending}")
    assert ending in str(error.value)


def test_a_number_is_no_ending(tmp_path, model):
    assert export(model, tmp_path / "digits-0.3").is_dir()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("m.tflite", {"quantize": "int9"}, ["int9", "int8"]),
        ("m.tflite", {"quantize": "int8"}, ["calibration"]),
        ("m.tflite", {"calibration": np.zeros((2, *SHAPE), np.float32)}, ["Calibration", "int8"]),
        ("saved", {"quantize": "float16"}, ["saved", "float16"]),
        ("m.tflite", {"quantize": "int8", "calibration": np.full((2, *SHAPE), 16.0)}, ["16", "[0, 1]"]),
        ("m.tflite", {"quantize": "int8", "calibration": np.zeros((2, 8, 8, 3))}, ["(2, 8, 8, 3)"]),
        ("m.tflite", {"quantize": "int8", "calibration": np.zeros((2, *SHAPE), np.uint8)}, ["uint8"]),
    ],
)
def test_bad_options_are_refused(tmp_path, model, name, options, words):
    with pytest.raises(InputError) as error:
        export(model, tmp_path / name, **options)
    for word in words:
        assert word in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "unfit",
    [
        lambda: keras.Sequential([layers.Dense(3)]),
        lambda: keras.Sequential(
            [keras.Input((None, None, 3)), layers.GlobalMaxPooling2D(), layers.Dense(3)]
        ),
        lambda: keras.Model([a := keras.Input((3,)), b := keras.Input((3,))], layers.Add()([a, b])),
        lambda: "at_mnist",
    ],
    ids=["unbuilt", "free size", "two inputs", "a name"],
)
def test_models_without_one_fixed_input_are_refused(tmp_path, unfit):
    with pytest.raises(InputError, match="one input of fixed size"):
        export(unfit(), tmp_path / "m.tflite")


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_an_unwritable_place_is_refused(tmp_path, model, name):
    Path(tmp_path, "file").write_text("here")
    with pytest.raises(InputError, match="Cannot write"):
        export(model, tmp_path / "file" / name)


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_a_full_disk_leaves_the_earlier_export_in_place(tmp_path, model, digits, name):
    path = export(model, tmp_path / name)
    before = load_exported(path)(digits[0][:5])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(InputError, match="Cannot write"):
            export(convolutional(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(load_exported(path)(digits[0][:5]), before)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_a_new_export_replaces_the_earlier_one(tmp_path, model, digits, name):
    export(convolutional(), tmp_path / name)
    path = export(model, tmp_path / name)
    np.testing.assert_allclose(load_exported(path)(digits[0][:5]), model(digits[0][:5]), atol=1e-4)
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_files_and_directories_are_not_replaced(tmp_path, model):
    Path(tmp_path, "notes").mkdir()
    Path(tmp_path, "notes", "precious").write_text("keep")
    Path(tmp_path, "m.tflite").mkdir()
    for name in ("notes", "notes/precious", "m.tflite"):
        with pytest.raises(InputError, match="Cannot export"):
            export(model, tmp_path / name)
    assert Path(tmp_path, "notes", "precious").read_text() == "keep"


def test_a_broken_file_is_refused(exports, tmp_path):
    content = exports["float32"].read_bytes()
    for broken in (b"", b"<html>" * 50, content[: len(content) // 2]):
        Path(tmp_path, "m.tflite").write_bytes(broken)
        with pytest.raises(InputError, match="not a valid TFLite file"):
            load_exported(tmp_path / "m.tflite")


def test_a_missing_or_broken_saved_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no export"):
        load_exported(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a SavedModel"):
        load_exported(tmp_path)
    Path(tmp_path, "saved_model.pb").write_text("<html>")
    with pytest.raises(InputError, match="not a SavedModel"):
        load_exported(tmp_path)


@pytest.mark.parametrize("precision", ["saved_model", "float32"])
def test_images_of_another_shape_are_refused_before_they_run(exports, precision):
    with pytest.raises(InputError, match=r"\(N, 8, 8, 1\)"):
        load_exported(exports[precision])(np.zeros((2, 9, 8, 1), np.float32))


@pytest.mark.parametrize(
    "names, target, words",
    [
        (
            ("logits", "score"),
            "m.tflite",
            r"gives logits only; the outputs of the model are \['logits', 'score'\]",
        ),
        (("scores", "score"), "m", r"its outputs are \['score', 'scores'\]"),
        ((0, 1), "m", "its outputs are 2 without names"),
    ],
)
def test_of_several_outputs_one_is_the_logits(tmp_path, names, target, words):
    image = keras.Input((8, 8, 1))
    first, second = (keras.layers.Dense(size)(keras.layers.Flatten()(image)) for size in (10, 1))
    outputs = {names[0]: first, names[1]: second} if names[0] else [first, second]
    with pytest.raises(InputError, match=words):
        export(keras.Model(image, outputs), tmp_path / target)
    assert not list(tmp_path.iterdir())


def test_without_the_runtime_the_message_says_what_to_install(exports, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r'pip install "keras-robust\[litert\]"'):
        load_exported(exports["float32"])


def test_the_check_needs_an_attack_and_valid_data(exports, model, digits):
    path, (x, y) = exports["float32"], digits
    with pytest.raises(InputError, match="eps"):
        check_export(path, model, x[:5], y[:5])
    with pytest.raises(InputError, match="5 labels for 6 images"):
        check_export(path, model, x[:6], y[:5], attack=push_down)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        check_export(path, model, x[:5], y[:5], attack=lambda model, x, y: x + 1)


def test_conversion_is_silent(tmp_path, model, capfd, digits):
    export(model, tmp_path / "m.tflite", "int8", digits[0][:10])
    with pytest.raises(InputError):
        export(functional(spectrum), tmp_path / "n.tflite")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_every_quantization_has_a_limit():
    assert set(MIN_AGREEMENT) == {"saved_model", "float32", *QUANTIZATIONS}
