"""What is kept on a model is no part of it."""

import keras
import numpy as np

from keras_robust import models
from keras_robust.attacks import FGSM
from keras_robust.models.kept import kept_on


def test_it_is_made_once_for_each_model_and_name():
    one, other = (models.build("small_cnn", filters=2, hidden=4) for _ in range(2))
    made = kept_on(one, "thing", object)
    assert kept_on(one, "thing", object) is made
    assert kept_on(one, "another", object) is not made and kept_on(other, "thing", object) is not made


def test_files_of_an_attacked_model_hold_its_weights_alone(tmp_path):
    model = models.build("small_cnn", filters=2, hidden=4)
    model.save_weights(tmp_path / "before.weights.h5")
    images, labels = np.zeros((2, 8, 8, 1), "float32"), np.zeros(2, "int32")
    FGSM(eps=0.1, search_dtype="bfloat16")(model, images, labels)
    model.save_weights(tmp_path / "after.weights.h5")
    model.save(tmp_path / "model.keras")
    sizes = {path.stat().st_size for path in tmp_path.glob("*.h5")}
    assert len(sizes) == 1
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
