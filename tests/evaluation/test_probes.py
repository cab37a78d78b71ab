"""What the probes measure, against closed forms."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_robust import models
from keras_robust.evaluation import probes
from keras_robust.evaluation.masked import purifying
from keras_robust.evaluation.probes import Sample, probe
from keras_robust.threat import ThreatModel

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def binary(linear):
    """A linear classifier of two classes, 80 images far from the bounds that it classifies rightly."""
    weights = RANDOM.normal(size=(16, 2)).astype("float32")
    model = linear(weights, (4, 4, 1), -0.5 * weights.sum(0))
    images = RANDOM.uniform(0.4, 0.6, (80, 4, 4, 1)).astype("float32")
    return model, images, np.argmax(model(images), axis=-1).astype("int32")


@pytest.mark.parametrize(("norm", "eps", "dual"), [("linf", 0.02, 1), ("l2", 0.08, 2)])
def test_accuracies_of_a_linear_classifier_are_those_of_the_closed_form(binary, norm, eps, dual):
    model, images, labels = binary
    values = probes.accuracy(Sample(model, images, labels, ThreatModel(norm, eps)))
    logits = model(images).numpy()
    difference = model.layers[-1].get_weights()[0] @ [1, -1]
    reach = np.abs(logits @ [1, -1]) / np.linalg.norm(difference, dual)  # distance to the boundary

    def standing(radius):
        return pytest.approx(100 * (reach > radius).mean())

    assert values["pgd_20_half_eps"] == standing(eps / 2)
    assert values["pgd_20_double_eps"] == standing(2 * eps)
    for name in ("pgd_20", "pgd_10", "pgd_100", "pgd_20_targeted"):
        assert values[name] == standing(eps)
    assert 0 < values["pgd_20_double_eps"] < values["pgd_20_half_eps"] < 100, "or the test could not fail"
    assert values["pgd_20_whole_range"] == 0
    assert {values[name] for name in values if name.startswith("only_")} == {0.0}


def test_there_may_be_few_examples_or_none_and_a_ball_without_meaning(binary):
    model, images, labels = binary
    one = probe(model, images[:1], labels[:1], ThreatModel("linf", 0.02))
    assert one["probed"] == 1 and one["planted_images"] <= 1
    assert probe(model, images[:0], labels[:0], ThreatModel("linf", 0.02)) == {}
    for eps in (0.0, math.inf):
        assert probe(model, images, labels, ThreatModel("linf", eps)) == {}


def test_what_one_attack_alone_breaks_is_told_from_what_both_break(binary, monkeypatch):
    fallen = {"pgd_20": [0, 1, 2], "pgd_20_targeted": [2, 3], "pgd_10": [0], "pgd_100": [0, 5]}
    attacks = {name: name for name in probes._attacks(sample(*binary))}
    monkeypatch.setattr(probes, "_attacks", lambda _: attacks)
    monkeypatch.setattr(probes, "_standing", lambda _, name: ~np.isin(np.arange(10), fallen.get(name, [])))
    values = probes.accuracy(None)
    assert (values["only_pgd_20"], values["only_pgd_20_targeted"]) == pytest.approx((20, 10))
    assert (values["only_pgd_10"], values["only_pgd_100"]) == pytest.approx((0, 10))
    assert values["pgd_20"] == pytest.approx(70)


def sample(model, images, labels=None, eps=0.1):
    labels = np.zeros(len(images), "int32") if labels is None else labels
    return Sample(model, images, labels, ThreatModel("linf", eps))


def test_gradients_that_are_zero_are_counted():
    inputs = keras.Input((2, 2, 1))
    alive = ops.relu(ops.mean(layers.Flatten()(inputs), axis=-1, keepdims=True) - 0.5)
    model = keras.Model(inputs, layers.Dense(3)(alive))
    means = np.array([0.1, 0.4, 0.6, 0.9, 0.95])
    images = np.broadcast_to(means[:, None, None, None], (5, 2, 2, 1)).astype("float32")
    assert probes.zero_gradients(sample(model, images)) == {"zero_gradients": pytest.approx(40)}


def test_outputs_that_vary_are_measured_relative_to_the_largest(binary):
    @keras.saving.register_keras_serializable("tests")
    class Counter(layers.Layer):
        """Adds 0, then 3, then 6: each call sees another number."""

        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, values):
            before = 0.0 + self.calls
            self.calls.assign_add(3.0)
            return 0 * values + before + 12.0

    _, images, _ = binary
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), Counter()])
    model.layers[-1].calls.assign(0.0)
    assert probes.varying_outputs(sample(model, images)) == {"varying_outputs": pytest.approx(0.25)}
    assert probes.varying_outputs(sample(*binary)) == {"varying_outputs": 0.0}


def test_a_gradient_in_the_inference_graph_is_seen_and_a_transposed_convolution_is_none(binary):
    model, images, _ = binary
    transposed = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2DTranspose(2, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    # Of a linear classifier the gradient is a product of matrices, like its logits.
    hidden = purifying(models.split(model, at=model.layers[0]))
    for honest in (model, transposed):
        assert probes.gradient_operations(sample(honest, images)) == {"gradient_operations": 0.0}
    assert probes.gradient_operations(sample(hidden, images))["gradient_operations"] > 0


def test_at_most_64_examples_are_looked_at_and_no_probe_takes_the_name_of_another(binary, monkeypatch):
    model, images, labels = binary
    seen = []
    monkeypatch.setattr(probes, "probes", {"a": lambda given: seen.append(given) or {"value": 1.0}})
    assert probe(model, images, labels, ThreatModel("linf", 0.02)) == {"probed": 64.0, "value": 1.0}
    np.testing.assert_array_equal(seen[0].images, images[:64])
    monkeypatch.undo()
    names = [name for key in probes.probes for name in probes.probes[key](sample(model, images[:2]))]
    assert len(names) == len(set(names))
