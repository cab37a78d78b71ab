"""The ball and the bounds, against NumPy and the definitions."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_robust.errors import InputError
from keras_robust.noise import Noise
from keras_robust.threat import NORMS, ThreatModel

SHAPE = (3, 4, 4, 2)
DIMENSION = 32
TOLERANCE = 1e-5  # float32 rounding of a norm of 32 values

norms = st.sampled_from(sorted(NORMS))
radii = st.floats(0, 2, width=32)
pixels = arrays.arrays("float32", SHAPE, elements=st.floats(0, 1, width=32))
anything = arrays.arrays("float32", SHAPE, elements=st.floats(-100, 100, width=32))
quick = settings(max_examples=30)
each_norm = pytest.mark.parametrize("norm", NORMS)


def size(norm, delta):
    order = {"linf": np.inf, "l2": 2}[norm]
    return np.linalg.norm(np.asarray(delta, "float64").reshape(len(delta), -1), ord=order, axis=1)


def dual(norm, gradient):
    order = {"linf": 1, "l2": 2}[norm]
    return np.linalg.norm(np.asarray(gradient, "float64").reshape(len(gradient), -1), ord=order, axis=1)


def assert_inside(threat, adversarial, images):
    adversarial = np.asarray(adversarial)
    assert (size(threat.norm, adversarial - images) <= threat.eps + TOLERANCE).all()
    assert threat.bounds[0] <= adversarial.min() and adversarial.max() <= threat.bounds[1]


@quick
@given(norm=norms, eps=radii, images=pixels, far=anything)
def test_projection_lands_inside_and_stays(norm, eps, images, far):
    threat = ThreatModel(norm, eps)
    once = threat.project(far, images)
    assert_inside(threat, once, images)
    np.testing.assert_allclose(threat.project(once, images), once, atol=TOLERANCE)


@quick
@given(norm=norms, eps=radii, images=pixels, others=pixels)
def test_projection_leaves_points_inside_alone(norm, eps, images, others):
    delta = others - images
    inside = images + delta * min(eps, 1) / np.maximum(size(norm, delta), 1).reshape(-1, 1, 1, 1)
    inside = np.clip(inside, 0, 1).astype("float32")
    np.testing.assert_allclose(ThreatModel(norm, eps).project(inside, images), inside, atol=TOLERANCE)


@each_norm
def test_projection_is_the_nearest_point_of_the_ball(norm):
    """Where the bounds are out of reach, no sampled point of the ball is nearer."""
    rng = np.random.default_rng(0)
    images, far = np.zeros((1, 6), "float32"), rng.normal(size=(1, 6)).astype("float32")
    threat = ThreatModel(norm, 0.7, (-9, 9))
    nearest = size("l2", np.asarray(threat.project(far, images)) - far)
    ball = np.asarray(threat.random_start(np.zeros((5000, 6), "float32"), Noise((0, 0))))
    assert size("l2", ball - far).min() >= nearest - TOLERANCE


@quick
@given(norm=norms, eps=radii, images=pixels, seed=st.integers(0, 2**31 - 1))
def test_random_starts_are_inside(norm, eps, images, seed):
    threat = ThreatModel(norm, eps)
    assert_inside(threat, threat.random_start(images, Noise((seed, 0))), images)


@each_norm
def test_random_starts_fill_the_ball_uniformly(norm):
    """The share of the volume within radius r is r to the power of the dimension."""
    images = np.zeros((20_000, 3), "float32")
    radius = size(norm, ThreatModel(norm, 0.5, (-1, 1)).random_start(images, Noise((1, 1)))) / 0.5
    for quantile in (0.1, 0.5, 0.9):
        assert abs((radius**3 <= quantile).mean() - quantile) < 0.02


@quick
@given(norm=norms, gradient=anything, others=anything)
def test_steepest_has_unit_size_and_maximises_a_linear_function(norm, gradient, others):
    direction = np.asarray(ThreatModel(norm).steepest(gradient))
    flat = gradient.reshape(3, -1).astype("float64")
    moving = abs(flat).max(axis=1) > 1e-30
    np.testing.assert_allclose(size(norm, direction)[moving], 1, rtol=1e-5)
    gain = (flat * direction.reshape(3, -1)).sum(axis=1)
    np.testing.assert_allclose(gain, dual(norm, gradient), rtol=1e-4, atol=1e-30)
    other = others.reshape(3, -1) / np.maximum(size(norm, others), 1e-9)[:, None]
    assert (gain >= (flat * other).sum(axis=1) * (1 - 1e-4) - 1e-4).all()


@each_norm
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15])
def test_steepest_does_not_depend_on_the_scale_of_the_gradient(norm, scale):
    gradient = np.random.default_rng(1).normal(size=SHAPE).astype("float32")
    steepest = ThreatModel(norm).steepest
    np.testing.assert_allclose(steepest(gradient * np.float32(scale)), steepest(gradient), rtol=1e-5)


@each_norm
def test_no_gradient_no_step(norm):
    assert not np.asarray(ThreatModel(norm).steepest(np.zeros(SHAPE, "float32"))).any()


@each_norm
def test_no_example_is_not_too_few(norm):
    """Such is the part of a batch that a replica of a distribution strategy can get."""
    nothing, threat = np.zeros((0, 4, 4, 2), "float32"), ThreatModel(norm, 0.1)
    for images in (
        threat.project(nothing, nothing),
        threat.steepest(nothing),
        threat.random_start(nothing, Noise((0, 0))),
        threat.random_edge(nothing, Noise((0, 0))),
    ):
        assert images.shape == nothing.shape


@quick
@given(norm=norms, images=pixels, others=anything)
def test_distance_is_the_norm(norm, images, others):
    distance = ThreatModel(norm).distance(others, images)
    assert distance.shape == (3,)
    # Below the tolerance the squares of float32 differences are zero.
    np.testing.assert_allclose(distance, size(norm, others - images), rtol=1e-5, atol=1e-18)


@each_norm
def test_the_radius_may_be_a_tensor(norm):
    images = np.full(SHAPE, 0.5, "float32")
    far = np.random.default_rng(2).normal(size=SHAPE).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec(())])
    def project(eps):
        return ThreatModel(norm, eps).project(far, images)

    for eps in (0.1, 0.3):
        np.testing.assert_allclose(project(eps), ThreatModel(norm, eps).project(far, images), atol=1e-6)


def test_other_bounds():
    threat = ThreatModel("linf", 5.0, (-1, 2))
    np.testing.assert_array_equal(threat.project([[-9.0, 9.0]], np.zeros((1, 2), "float32")), [[-1, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l_inf"}, "Unknown norm: 'l_inf'. Did you mean 'linf'"),
        ({"norm": "l1"}, "Valid: l2, linf"),
        ({"eps": -0.1}, "eps must be a finite number >= 0.*eps=-0.1"),
        ({"eps": np.float32(-1)}, "eps must be a finite number >= 0"),
        ({"eps": float("nan")}, "eps must be a finite number"),
        ({"eps": -float("inf")}, "eps must be a finite number"),
        ({"eps": "0.3"}, "eps must be a finite number.*'0.3'"),
        ({"eps": None}, "eps must be a finite number"),
        ({"bounds": (1, 0)}, "low < high"),
        ({"bounds": 1.0}, "low < high.*bounds=1.0"),
        ({"bounds": [0]}, "low < high"),
        ({"bounds": ("0", "1")}, "low < high"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        ThreatModel(**options)
