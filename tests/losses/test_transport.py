"""Sinkhorn's algorithm against an exact assignment and against a float64 oracle in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from keras_robust import losses
from keras_robust.errors import InputError

rng = np.random.default_rng(0)
transport_cost = tf.function(losses.transport_cost, autograph=False)  # thousands of iterations


def costs_of(features, others):
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, others)]
    return 1 - units[0].astype("float64") @ units[1].T.astype("float64")


def sinkhorn(costs, regularization, iterations, tolerance):
    rows, columns = costs.shape
    u, v = np.zeros(rows), np.zeros(columns)
    for _ in range(iterations):
        before = u
        u = u + regularization * (
            -np.log(rows) - logsumexp((u[:, None] + v - costs) / regularization, axis=1)
        )
        v = v + regularization * (
            -np.log(columns) - logsumexp((u[:, None] + v - costs) / regularization, axis=0)
        )
        if abs(u - before).sum() < tolerance:
            break
    return np.exp((u[:, None] + v - costs) / regularization)


@pytest.mark.parametrize("size", [(16, 10), (40, 10), (33, 3)])
def test_it_converges_to_the_exact_assignment(size):
    features, others = rng.normal(size=(2, *size)).astype("float32")
    costs = costs_of(features, others)
    rows, columns = linear_sum_assignment(costs)
    found = transport_cost(features, others, regularization=1e-3, iterations=20_000, tolerance=1e-4)
    assert np.mean(found) == pytest.approx(costs[rows, columns].mean(), rel=0.01)


@pytest.mark.parametrize("noise", [0.05, 0.5, 3.0])
def test_the_paper_s_setting_equals_the_oracle(noise):
    features = rng.normal(size=(60, 10)).astype("float32")
    others = (features + noise * rng.normal(size=features.shape)).astype("float32")
    costs = costs_of(features, others)
    plan = sinkhorn(costs, 0.01, 100, 0.1)
    np.testing.assert_allclose(losses.transport_plan(costs), plan, rtol=0, atol=1e-5)
    found = np.mean(losses.transport_cost(features, others))
    assert found == pytest.approx((plan * costs).sum(), abs=1e-5)


@pytest.mark.parametrize(("iterations", "tolerance", "taken"), [(3, 1e-9, 3), (100, 1e9, 1)])
def test_it_stops_after_the_iterations_or_at_the_tolerance(iterations, tolerance, taken):
    costs = rng.uniform(size=(6, 8)).astype("float32")
    plan = sinkhorn(costs, 0.05, taken, 0)
    np.testing.assert_allclose(losses.transport_plan(costs, 0.05, iterations, tolerance), plan, atol=1e-6)


def test_a_plan_has_uniform_margins():
    plan = np.asarray(losses.transport_plan(rng.uniform(size=(6, 8)), 0.05, 1000, 1e-6))
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 8, atol=1e-5)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 6, atol=1e-5)


def test_the_order_of_a_batch_costs_nothing():
    features = rng.normal(size=(12, 4)).astype("float32")
    assert np.mean(losses.transport_cost(features, features[::-1])) == pytest.approx(0, abs=1e-3)


def test_the_gradient_is_that_of_the_regularised_distance():
    """Envelope theorem, by finite differences of min <P, C> + reg · sum P (log P + log(rows · columns))."""
    features, others = rng.normal(size=(2, 5, 3))
    options = {"regularization": 0.1, "iterations": 2000, "tolerance": 1e-6}

    def regularised(moved):
        costs = costs_of(features, moved)
        plan = sinkhorn(costs, 0.1, 5000, 1e-13)
        return (plan * costs).sum() + 0.1 * (plan * np.log(25 * plan)).sum()

    moved = tf.constant(others, "float32")
    with tf.GradientTape() as tape:
        tape.watch(moved)
        distance = tf.reduce_mean(transport_cost(features.astype("float32"), moved, **options))
    gradient = tape.gradient(distance, moved).numpy()
    for index in np.ndindex(others.shape):
        nudge = np.zeros_like(others)
        nudge[index] = 1e-5
        expected = (regularised(others + nudge) - regularised(others - nudge)) / 2e-5
        assert gradient[index] == pytest.approx(expected, abs=1e-4)


def test_xla_gives_the_same():
    features, others = rng.normal(size=(2, 20, 6)).astype("float32")
    compiled = tf.function(losses.transport_cost, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(features, others), losses.transport_cost(features, others), atol=1e-5)


def test_the_object_is_the_mean_and_round_trips():
    features, others = rng.normal(size=(2, 20, 6)).astype("float32")
    loss = losses.TransportDistance(regularization=0.05, iterations=7, tolerance=0.2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    expected = np.mean(losses.transport_cost(features, others, 0.05, 7, 0.2))
    assert float(again(features, others)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"regularization": 0}, {"iterations": 0}, {"iterations": 2.5}, {"tolerance": float("nan")}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        losses.TransportDistance(**options)
