"""Loss terms against float64 oracles in NumPy, finite differences and their invariances."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special

from keras_robust import losses
from keras_robust.errors import InputError

rng = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 3, 4, 0, 2], "int32")
TARGETS = np.array([1, 0, 4, 2, 0, 3, 1], "int32")
LOGITS = rng.normal(scale=3, size=(7, 5)).astype("float32")
OTHER = rng.normal(scale=3, size=(7, 5)).astype("float32")

logit_arrays = arrays.arrays("float32", (3, 5), elements=st.floats(-50, 50, width=32))
quick = settings(max_examples=30)


def pick(logits, labels):
    return logits[np.arange(len(labels)), labels]


def margin_oracle(labels, logits):
    others = np.array([max(np.delete(row, label)) for row, label in zip(logits, labels, strict=True)])
    return others - pick(logits, labels)


def dlr_oracle(labels, logits):
    ranked = -np.sort(-logits, axis=1)
    return margin_oracle(labels, logits) / (ranked[:, 0] - ranked[:, 2])


def targeted_dlr_oracle(labels, logits):
    ranked = -np.sort(-logits, axis=1)
    spread = ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2
    return -(pick(logits, labels) - pick(logits, TARGETS)) / spread


def cross_entropy_oracle(labels, logits):
    return -pick(special.log_softmax(logits, axis=1), labels)


def kl_oracle(target, logits):
    log_p, log_q = (special.log_softmax(scores.astype("float64"), axis=1) for scores in (target, logits))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def entropy_oracle(labels, logits):
    return special.entr(special.softmax(logits, axis=1)).sum(axis=1)


def global_compactness_oracle(labels, latents):
    weights = np.where(labels[:, None] == labels, 1, (0.99 - 1) / 0.99)
    return (weights * np.abs(latents[:, None] - latents).mean(axis=2)).mean(axis=0)


ORACLES = {  # name: (function of one second argument, its oracle, first argument)
    "cross_entropy": (losses.cross_entropy, cross_entropy_oracle, LABELS),
    "margin": (losses.margin, margin_oracle, LABELS),
    "dlr": (losses.dlr, dlr_oracle, LABELS),
    "targeted_dlr": (
        lambda labels, logits: losses.targeted_dlr(labels, TARGETS, logits),
        targeted_dlr_oracle,
        LABELS,
    ),
    "kl_divergence": (losses.kl_divergence, kl_oracle, OTHER),
}
OBJECTS = {  # name: (loss, oracle of its values, y_true)
    "Margin": (losses.Margin(2.0), lambda y, z: np.maximum(margin_oracle(y, z) + 2, 0), LABELS),
    "KLDivergence": (losses.KLDivergence(), kl_oracle, OTHER),
    "Smoothness": (losses.Smoothness(), kl_oracle, OTHER),
    "ConditionalEntropy": (losses.ConditionalEntropy(), entropy_oracle, LABELS),
    "LocalCompactness": (losses.LocalCompactness(), lambda y, z: np.abs(y - z).mean(axis=1), OTHER),
    "GlobalCompactness": (losses.GlobalCompactness(), global_compactness_oracle, LABELS),
}
each_function = pytest.mark.parametrize(("function", "oracle", "first"), ORACLES.values(), ids=ORACLES)
each_object = pytest.mark.parametrize(("loss", "oracle", "y_true"), OBJECTS.values(), ids=OBJECTS)


@each_function
def test_values_equal_the_oracle(function, oracle, first):
    values = function(first, LOGITS)
    assert values.dtype == "float32" and values.shape == (7,)
    np.testing.assert_allclose(values, oracle(first, LOGITS.astype("float64")), rtol=1e-5, atol=1e-6)


def test_logits_in_bfloat16_are_judged_in_float32():
    logits, other = (tf.cast(values, "bfloat16") for values in (LOGITS, OTHER))
    exact, exact_other = (tf.cast(values, "float64").numpy() for values in (logits, other))
    for values, expected in (
        (losses.cross_entropy(LABELS, logits), cross_entropy_oracle(LABELS, exact)),
        (losses.kl_divergence(other, logits), kl_oracle(exact_other, exact)),
        (losses.logit_matching(other, logits), np.square(exact - exact_other).mean(axis=1)),
        (losses.entropy(logits), entropy_oracle(LABELS, exact)),
    ):
        assert values.dtype == "float32"
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@each_function
def test_gradients_equal_finite_differences(function, oracle, first):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = function(first, logits)
    gradient = tape.gradient(values, logits).numpy()
    step = 1e-6
    for column in range(LOGITS.shape[1]):
        nudge = step * np.eye(5)[column]
        expected = (oracle(first, LOGITS + nudge) - oracle(first, LOGITS - nudge)) / (2 * step)
        np.testing.assert_allclose(gradient[:, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "kl_divergence"])
def test_extreme_logits_stay_finite(name):
    function, oracle, first = ORACLES[name]
    extreme = (LOGITS * 1e4).astype("float64")
    np.testing.assert_allclose(function(first, extreme), oracle(first, extreme), rtol=1e-4, atol=1e-4)


def test_the_margin_is_positive_exactly_where_the_class_is_wrong():
    np.testing.assert_array_equal(np.asarray(losses.margin(LABELS, LOGITS)) > 0, LOGITS.argmax(1) != LABELS)


@quick
@given(scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_dlr_does_not_see_scale_and_shift(scale, shift):
    moved = (LOGITS * scale + shift).astype("float32")
    for name in ("dlr", "targeted_dlr"):
        function = ORACLES[name][0]
        np.testing.assert_allclose(function(LABELS, moved), function(LABELS, LOGITS), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("function", "classes"),
    [(losses.dlr, 2), (lambda labels, logits: losses.targeted_dlr(labels, labels, logits), 3)],
)
def test_dlr_needs_enough_classes(function, classes):
    with pytest.raises(InputError, match=f"Received: {classes}"):
        function(np.array([0]), np.zeros((1, classes), "float32"))
    assert function(np.array([0]), np.eye(1, classes + 1, dtype="float32")).shape == (1,)


@quick
@given(target=logit_arrays, logits=logit_arrays)
def test_kl_is_not_negative_and_zero_only_for_equals(target, logits):
    assert (np.asarray(losses.kl_divergence(target, logits)) >= -1e-5).all()
    np.testing.assert_allclose(losses.kl_divergence(target, target), 0, atol=1e-6)
    np.testing.assert_allclose(losses.kl_divergence(target, target + 1), 0, atol=1e-4)


@quick
@given(logits=logit_arrays, labels=arrays.arrays("int32", 3, elements=st.integers(0, 4)))
def test_cross_entropy_bounds_the_margin(logits, labels):
    """log(1 + exp(margin)) <= CE: two classes against all."""
    bound = np.logaddexp(0, np.asarray(losses.margin(labels, logits), "float64"))
    assert (np.asarray(losses.cross_entropy(labels, logits)) >= bound - 1e-4).all()


@pytest.mark.parametrize("name", [name for name, item in vars(losses).items() if inspect.isclass(item)])
def test_every_loss_class_can_be_saved(name):
    cls = getattr(losses, name)
    assert issubclass(cls, keras.losses.Loss)
    assert keras.saving.get_registered_object(f"keras_robust>{name}") is cls


@each_object
def test_object_is_the_mean_of_its_oracle(loss, oracle, y_true):
    expected = oracle(y_true, LOGITS.astype("float64"))
    np.testing.assert_allclose(loss(y_true, LOGITS), expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss.call(y_true, LOGITS), expected, rtol=1e-5, atol=1e-6)


@each_object
def test_object_weighs_examples(loss, oracle, y_true):
    weights = np.array([1, 0, 0, 2, 0, 0, 0.5], "float32")
    expected = (weights * oracle(y_true, LOGITS.astype("float64"))).sum() / weights.size
    np.testing.assert_allclose(loss(y_true, LOGITS, sample_weight=weights), expected, rtol=1e-5)


@each_object
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", None])
def test_object_round_trips(loss, oracle, y_true, reduction):
    loss = type(loss).from_config({**loss.get_config(), "reduction": reduction, "name": "mine"})
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert (again.name, again.reduction) == ("mine", reduction)
    np.testing.assert_array_equal(again(y_true, LOGITS), loss(y_true, LOGITS))


@each_object
def test_object_compiles_into_a_model_and_its_file(loss, oracle, y_true, tmp_path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, kernel_initializer="identity")])
    model.compile("sgd", loss=loss)
    assert model.evaluate(LOGITS, y_true, verbose=0) == pytest.approx(
        oracle(y_true, LOGITS.astype("float64")).mean(), rel=1e-4
    )
    model.fit(LOGITS, y_true, epochs=3, verbose=0)
    value = model.evaluate(LOGITS, y_true, verbose=0)
    assert value < oracle(y_true, LOGITS.astype("float64")).mean()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(LOGITS, y_true, verbose=0) == pytest.approx(value, rel=1e-5)


def test_margin_takes_labels_as_a_column():
    loss = losses.Margin(1.0)
    np.testing.assert_array_equal(loss(LABELS[:, None], LOGITS), loss(LABELS, LOGITS))


def test_the_entropy_of_a_pair_is_the_sum():
    found = losses.ConditionalEntropy()(LABELS, (LOGITS, 2 * LOGITS))
    expected = entropy_oracle(LABELS, LOGITS) + entropy_oracle(LABELS, 2 * LOGITS)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)
