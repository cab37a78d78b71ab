"""Graphs that are kept on a model."""

import keras
import numpy as np
from keras import layers

from keras_robust.attacks import FGSM
from keras_robust.attacks.compiling import trace_count


def test_graphs_of_a_model_with_other_weights_are_made_anew():
    """As `quantize` and `enable_lora` give them to layers of a model that was attacked before."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.layers[-1].set_weights([np.eye(4, 3, dtype="float32"), np.zeros(3, "float32")])
    images, labels = np.full((2, 4), 0.5, "float32"), np.array([0, 2])
    attack = FGSM(eps=0.1)
    before = attack(model, images, labels)
    assert trace_count(model) == 1
    model.layers[-1].enable_lora(1)
    model.layers[-1].lora_kernel_a.assign([[0.0], [0.0], [0.0], [1.0]])
    model.layers[-1].lora_kernel_b.assign([[5.0, 0.0, -5.0]])
    after = attack(model, images, labels)
    np.testing.assert_array_equal(before[:, 3], 0.5)
    np.testing.assert_allclose(after[:, 3], [0.4, 0.6], atol=1e-6)
    attack(model, images, labels)
    assert trace_count(model) == 1
