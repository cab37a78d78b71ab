"""FAB and its projection against other solvers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from keras_robust.attacks import FAB, FABTargeted, classify
from keras_robust.attacks.hyperplane import step_to_hyperplane
from keras_robust.attacks.minimal import Nearest
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel


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
@settings(max_examples=20)
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


@pytest.mark.parametrize("scale", [1.0, 1e-8])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_finds_what_exists(linear, norm, scale):
    """The boundary of a linear model with two classes is a hyperplane, and its distance is known."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 2), scale=scale).astype("float32")
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


def size(steps, norm):
    return np.abs(steps).max(axis=1) if norm == "linf" else np.linalg.norm(steps, axis=1)


def projected(points, normal, offset, norm):
    """The smallest step to a hyperplane inside [0, 1], by bisection."""
    gap = offset - (normal * points).sum(axis=1)
    towards = normal * np.sign(gap)[:, None]
    speed = np.sign(towards) if norm == "linf" else towards
    low, high = np.zeros(len(points)), np.full(len(points), 1e6)
    for _ in range(120):
        middle = (low + high) / 2
        step = np.clip(points + speed * middle[:, None], 0, 1) - points
        reached = (towards * step).sum(axis=1) >= np.abs(gap)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.clip(points + speed * high[:, None], 0, 1) - points


def fab_in_numpy(kernel, bias, images, labels, norm, steps, targets=None):
    """Distances that algorithm 1 finds on a linear model, in float64; inf where it finds nothing."""
    rows, start = np.arange(len(images)), images.reshape(len(images), -1).astype("float64")
    here, nearest = start, np.full(len(images), np.inf)
    slopes = kernel[:, None, :] - kernel[:, labels, None]
    duals = np.abs(slopes).sum(axis=0) if norm == "linf" else np.linalg.norm(slopes, axis=0)
    for _ in range(steps):
        logits = here @ kernel + bias
        gaps = logits - logits[rows, labels][:, None]
        if targets is None:
            own = np.arange(kernel.shape[1]) == labels[:, None]
            chosen = np.where(own, np.inf, np.abs(gaps) / np.maximum(duals, 1e-12)).argmin(axis=1)
        else:
            chosen = targets
        normal = slopes[:, rows, chosen].T
        offset = (normal * here).sum(axis=1) - gaps[rows, chosen]
        step, step_from_start = (projected(points, normal, offset, norm) for points in (here, start))
        ahead, back = size(step, norm), size(step_from_start, norm)
        bias_to_start = np.minimum(ahead / np.maximum(ahead + back, 1e-12), 0.1)[:, None]
        moved = (1 - bias_to_start) * (here + 1.05 * step) + bias_to_start * (start + 1.05 * step_from_start)
        moved = np.clip(moved, 0, 1)
        fooled = (moved @ kernel + bias).argmax(axis=1) != labels
        nearest = np.where(fooled, np.minimum(nearest, size(moved - start, norm)), nearest)
        here = np.where(fooled[:, None], start + 0.9 * (moved - start), moved)
    return nearest


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("targeted", [False, True])
def test_it_keeps_to_its_algorithm(digits_classifier, digits, targeted, steps, norm):
    right = classify(digits_classifier, digits[0][:50]) == digits[1][:50]
    images, labels = digits[0][:50][right], digits[1][:50][right]
    kernel, bias = (array.astype("float64") for array in digits_classifier.layers[-1].get_weights())
    attack = FABTargeted(norm=norm, steps=steps, classes=1) if targeted else FAB(norm=norm, steps=steps)
    likeliest = np.argsort(images.reshape(len(images), -1) @ kernel + bias, axis=1)[:, -2]
    expected = fab_in_numpy(kernel, bias, images, labels, norm, steps, likeliest if targeted else None)
    found = attack(digits_classifier, images, labels)
    distance = np.asarray(ThreatModel(norm).distance(found, images))
    np.testing.assert_allclose(distance, np.where(np.isinf(expected), 0, expected), atol=1e-4)
    assert np.isfinite(expected).any()


def test_a_restart_is_half_as_far_away_as_what_is_found():
    images, distances = np.full((3, 4, 4, 1), 0.5, "float32"), np.array([0.2, np.inf, 0.7], "float32")
    start = FAB(eps=0.4)._random_start(images, Nearest(images, distances), Noise((0, 0)))
    away = np.abs(np.asarray(start) - images).max(axis=(1, 2, 3))
    np.testing.assert_allclose(away, [0.1, 0.2, 0.2], rtol=1e-5)
