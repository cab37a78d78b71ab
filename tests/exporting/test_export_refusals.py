from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from small_nets import SHAPE, functional, random_images, spectrum

from keras_robust.errors import InputError
from keras_robust.exporting import export


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


@pytest.mark.parametrize("name", ["model.tflite", "saved"])
def test_probabilities_are_refused(tmp_path, name):
    model = functional(lambda images: images)
    model = keras.Model(model.input, layers.Softmax()(model.output))
    with pytest.raises(InputError, match="probabilities where logits are expected"):
        export(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


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
