"""FAB and its projection against other solvers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from keras_robust.attacks import FABTargeted, classify
from keras_robust.attacks.hyperplane import step_to_hyperplane


def smallest_linf(point, normal, offset):
    """The size of the smallest step by linear programming."""
    n = len(point)
    bound = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    box = [(-value, 1 - value) for value in point]
    gap = offset - normal @ point
    return linprog(
        np.r_[np.zeros(n), 1], bound, np.zeros(2 * n), [np.r_[normal, 0]], [gap], [*box, (0, None)]
    ).fun


def smallest_l2(point, normal, offset):
    found = minimize(
        lambda step: step @ step,
        np.zeros(len(point)),
        jac=lambda step: 2 * step,
        bounds=[(-value, 1 - value) for value in point],
        constraints={"type": "eq", "fun": lambda step: normal @ (point + step) - offset},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return np.sqrt(found.fun)


@pytest.mark.parametrize(("norm", "solve"), [("linf", smallest_linf), ("l2", smallest_l2)])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_the_step_is_the_smallest(norm, solve, seed):
    rng = np.random.default_rng(seed)
    points, normal = rng.uniform(size=(3, 8)), rng.normal(size=(3, 8))
    offset = (normal * rng.uniform(size=(3, 8))).sum(1)  # inside the box
    step = np.asarray(
        step_to_hyperplane(*(v.astype("float32") for v in (points, normal, offset)), norm, (0.0, 1.0))
    )
    size = np.abs(step).max(1) if norm == "linf" else np.linalg.norm(step, axis=1)
    np.testing.assert_allclose((normal * (points + step)).sum(1), offset, atol=1e-5)
    np.testing.assert_allclose(
        size, [solve(*row) for row in zip(points, normal, offset, strict=True)], atol=1e-4
    )
    assert (points + step >= -1e-6).all() and (points + step <= 1 + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_out_of_reach_goes_as_far_as_the_box(norm):
    points, normal = np.full((1, 3), 0.5, "float32"), np.array([[1.0, -2.0, 0.5]], "float32")
    step = step_to_hyperplane(points, normal, np.array([100.0], "float32"), norm, (0.0, 1.0))
    np.testing.assert_allclose(points + np.asarray(step), [[1.0, 0.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_finds_what_exists(linear, norm):
    """The boundary of a linear model with two classes is a hyperplane, and its distance is known."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 2)).astype("float32")
    model = linear(weights, (2, 3, 1))
    images = rng.uniform(0.4, 0.6, size=(20, 2, 3, 1)).astype("float32")
    labels = classify(model, images)
    logits = images.reshape(20, 6) @ weights
    difference = weights[:, 1] - weights[:, 0]
    dual = np.abs(difference).sum() if norm == "linf" else np.linalg.norm(difference)
    distance = np.abs(logits[:, 1] - logits[:, 0]) / dual
    eps = float(np.median(distance))
    found = FABTargeted(eps=eps, norm=norm, steps=20)(model, images, labels)
    broken = classify(model, found) != labels
    near = np.abs(distance - eps) < 0.06 * eps  # FAB steps 5 % over the boundary
    assert (broken == (distance < eps))[~near].all()
    assert broken.any() and not broken.all()
