import random

import keras
import pytest
from small_nets import convolutional

from keras_robust.exporting import QUANTIZATIONS, export


@pytest.fixture(scope="session")
def model(digits):
    """Trained, because only a trained net has margins that int8 must keep."""
    random.seed(0)
    model = convolutional()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(*digits, batch_size=64, epochs=12, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="session")
def exports(model, digits, tmp_path_factory):
    """The trained model in each precision."""
    room = tmp_path_factory.mktemp("exports")
    paths = {"saved_model": export(model, room / "saved"), "float32": export(model, room / "float32.tflite")}
    for quantize in QUANTIZATIONS:
        calibration = digits[0][:100] if quantize == "int8" else None
        paths[quantize] = export(model, room / f"{quantize}.tflite", quantize, calibration)
    return paths


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """A model that was not trained, as both formats."""
    room, model = tmp_path_factory.mktemp("untrained"), convolutional()
    return {"saved_model": export(model, room / "saved"), "float32": export(model, room / "float32.tflite")}
