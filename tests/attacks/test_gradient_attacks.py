"""The climb against closed forms on linear models and a float64 oracle, and its options."""

import itertools
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from keras_robust.attacks import (
    APGD,
    BIM,
    CW,
    FGSM,
    MIM,
    PGD,
    AutoAttack,
    Goal,
    MultiTargeted,
    RandomTargeted,
    RayS,
    classify,
    observe,
)
from keras_robust.attacks.ascent import Rule, begin, climb
from keras_robust.attacks.compiling import trace_count
from keras_robust.attacks.objective import Objective, get_objective
from keras_robust.errors import InputError
from keras_robust.evaluation import evaluate
from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel

SHAPE = (3, 2, 2)
rng = np.random.default_rng(2)
IMAGES = rng.uniform(size=(8, *SHAPE)).astype("float32")
LABELS = np.array([0, 1] * 4, "int32")
WEIGHTS = rng.normal(size=(12, 2)).astype("float32")


@pytest.fixture(scope="module")
def two_classes(linear):
    return linear(WEIGHTS, SHAPE, bias=[0.1, -0.2])


def uphill(labels):
    """w_other - w_y of each example, shaped like the images: the way to the other class."""
    return (WEIGHTS[:, 1 - labels] - WEIGHTS[:, labels]).T.reshape(-1, *SHAPE)


LINF = [
    FGSM(eps=0.1),
    FGSM(eps=0.1, loss="margin"),
    PGD(eps=0.1, steps=10),
    PGD(eps=0.1, steps=10, start="normal"),
    PGD(eps=0.1, steps=10, loss="margin", keep_best=True),
    BIM(eps=0.1, steps=4, step_size=0.03),
    MIM(eps=0.1, steps=5),
    MIM(eps=0.1, steps=5, momentum=0.0),
    CW(eps=0.1, steps=10),
    MultiTargeted(eps=0.1, steps=10),
    MultiTargeted(eps=0.1, steps=10, loss="margin"),
]


def described(attack):
    return f"{type(attack).__name__}-{attack.loss}-{attack.start}"


@pytest.mark.parametrize("attack", LINF, ids=described)
def test_linf_closed_form(two_classes, attack):
    """Two linear classes: every pixel goes eps towards the other class, as far as the bounds allow."""
    expected = np.clip(IMAGES + 0.1 * np.sign(uphill(LABELS)), 0, 1)
    np.testing.assert_allclose(attack(two_classes, IMAGES, LABELS), expected, atol=1e-6)


@pytest.mark.parametrize("attack", LINF, ids=described)
def test_l2_closed_form(two_classes, attack):
    """Two linear classes, bounds out of reach: eps along the unit gradient."""
    images, direction = 0.4 + 0.2 * IMAGES, uphill(LABELS)
    direction /= np.linalg.norm(direction.reshape(8, -1), axis=1).reshape(-1, 1, 1, 1)
    options = {**attack.get_config(), "norm": "l2", "eps": 0.3, "keep_best": False}
    options |= {} if isinstance(attack, FGSM) else {"steps": 300, "step_size": 0.02}
    found = type(attack).from_config(options)(two_classes, images, LABELS)
    np.testing.assert_allclose(found, images + 0.3 * direction, atol=2e-4)


def test_a_short_walk_ends_before_the_ball_does(two_classes):
    found = BIM(eps=0.3, steps=3, step_size=0.02)(two_classes, IMAGES, LABELS)
    np.testing.assert_allclose(found, np.clip(IMAGES + 0.06 * np.sign(uphill(LABELS)), 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("attack", "step"),
    [(PGD(eps=0.2, steps=10), 0.05), (FGSM(eps=0.2), 0.2), (PGD(eps=0.2, step_size=0.07), 0.07)],
)
def test_default_step_size(attack, step):
    assert attack.step() == pytest.approx(step)


# A float64 oracle of the momentum iterative method on a softmax of linear scores.

SCORES = rng.normal(scale=3, size=(12, 3))
THREE = np.array([0, 1, 2, 0, 1, 2, 0, 1], "int32")


def softmax_gradient(images, labels):
    scores = images.reshape(len(images), -1) @ SCORES
    return ((special.softmax(scores, axis=1) - np.eye(3)[labels]) @ SCORES.T).reshape(images.shape)


def norm_of(values, order):
    return np.linalg.norm(values.reshape(len(values), -1), ord=order, axis=1).reshape(-1, 1, 1, 1)


def mim_oracle(norm, eps, step_size, decay, steps):
    """Iterates and velocities of Dong et al. 2018, algorithm 1, the gradient scaled to mean |g| = 1."""
    images, velocity = IMAGES.astype("float64"), np.zeros(IMAGES.shape)
    for _ in range(steps):
        gradient = softmax_gradient(images, THREE)
        velocity = decay * velocity + gradient * 12 / norm_of(gradient, 1)
        step = np.sign(velocity) if norm == "linf" else velocity / norm_of(velocity, 2)
        delta = images + step_size * step - IMAGES
        if norm == "linf":
            delta = np.clip(delta, -eps, eps)
        else:
            delta *= np.minimum(1, eps / norm_of(delta, 2))
        images = np.clip(IMAGES + delta, 0, 1)
        yield images, velocity


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_momentum_equals_the_oracle_step_by_step(linear, norm, decay):
    model = linear(SCORES.astype("float32"), SHAPE)
    rule = Rule(momentum=decay)
    state = begin(tf.constant(IMAGES), rule)
    for images, velocity in mim_oracle(norm, 0.25, 0.08, decay, steps=6):
        state = climb(
            model,
            get_objective("cross_entropy"),
            ThreatModel(norm, 0.25),
            tf.constant(IMAGES),
            Goal(THREE),
            state,
            steps=1,
            step_size=0.08,
            rule=rule,
        )
        np.testing.assert_allclose(state.velocity, velocity, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state.images, images, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_mim_equals_the_oracle(linear, norm):
    model = linear(SCORES.astype("float32"), SHAPE)
    *_, (expected, _) = mim_oracle(norm, 0.25, 0.08, 1.0, steps=6)
    attack = MIM(eps=0.25, steps=6, step_size=0.08, norm=norm)
    np.testing.assert_allclose(attack(model, IMAGES, THREE), expected, atol=1e-5)
    segments = MIM(eps=0.25, steps=6, step_size=0.08, norm=norm, check_every=2)
    standing = classify(model, segments(model, IMAGES, THREE)) == THREE
    np.testing.assert_allclose(segments(model, IMAGES, THREE)[standing], expected[standing], atol=1e-5)


# Options

PICTURES = rng.uniform(size=(12, 8, 8, 1)).astype("float32")
FIVE = np.arange(12, dtype="int32") % 5


def ripple(labels, logits):
    return keras.ops.sin(20 * logits[:, 0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", ripple])
def test_the_best_is_the_best_of_all_iterates(conv_classifier, norm, loss):
    def value(images):
        return get_objective(loss)(observe(conv_classifier, tf.constant(images)), Goal(FIVE)).numpy()

    def found(steps, **options):
        attack = BIM(eps=0.4, steps=steps, step_size=0.5, norm=norm, loss=loss, **options)
        return attack(conv_classifier, PICTURES, FIVE)

    values = [value(PICTURES), *(value(found(steps)) for steps in range(1, 6))]
    best = value(found(5, keep_best=True))
    np.testing.assert_allclose(best, np.max(values, axis=0), rtol=1e-4, atol=1e-4)
    if loss is ripple:
        assert (best > values[-1] + 0.1).any()


def test_restarts_keep_what_an_earlier_start_found(digits_classifier, digits):
    images, labels = digits[0][:200], digits[1][:200]
    fooled = []
    for restarts in (1, 2, 4):
        attack = PGD(eps=0.06, steps=2, step_size=0.01, restarts=restarts)
        fooled.append(classify(digits_classifier, attack(digits_classifier, images, labels)) != labels)
    for fewer, more in itertools.pairwise(fooled):
        assert not (fewer & ~more).any()
    assert fooled[-1].sum() > fooled[0].sum()


@pytest.mark.parametrize("options", [{}, {"keep_best": True}, {"momentum": 1.0}, {"restarts": 2}])
@pytest.mark.parametrize("check_every", [1, 3, 50])
def test_stopping_early_costs_no_strength(digits_classifier, digits, options, check_every):
    images, labels = digits[0][:150], digits[1][:150]

    def run(**more):
        attack = PGD(eps=0.1, steps=7, step_size=0.02, **options, **more)
        found = attack(digits_classifier, images, labels)
        assert abs(found - images).max() <= 0.1 + 1e-6 and found.min() >= 0 and found.max() <= 1
        return (classify(digits_classifier, found) == labels).mean()

    plain = run()
    assert 0.05 < plain < 0.9
    assert run(check_every=check_every) <= plain + 0.01


def test_what_is_misclassified_early_is_left_where_it_is(digits_classifier, digits):
    images, labels = digits[0][:150], digits[1][:150]
    found = BIM(eps=0.2, steps=8, step_size=0.02, check_every=1)(digits_classifier, images, labels)
    steps = np.round(abs(found - images).reshape(150, -1).max(axis=1) / 0.02).astype(int)
    for count in range(1, 8):
        fixed = BIM(eps=0.2, steps=count, step_size=0.02)(digits_classifier, images, labels)
        stopped = steps == count
        np.testing.assert_allclose(found[stopped], fixed[stopped], atol=1e-5)
        assert (classify(digits_classifier, fixed[stopped]) != labels[stopped]).all()
    assert len(set(steps)) > 3


# Targets


@pytest.fixture(scope="module")
def own_pixel(linear):
    """Class k is the brightest of four pixels, the k-th."""
    return linear(10 * np.eye(4, dtype="float32"), (2, 2, 1))


PIXELS = rng.uniform(0.3, 0.7, size=(12, 2, 2, 1)).astype("float32")
BRIGHTEST = PIXELS.reshape(12, 4).argmax(axis=1).astype("int32")


@pytest.mark.parametrize("cls", [FGSM, PGD, BIM, MIM, CW])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("options", [{}, {"restarts": 2, "check_every": 1}])
def test_targets_are_reached(own_pixel, cls, loss, options):
    for shift in (1, 2, 3):
        targets = (BRIGHTEST + shift) % 4
        attack = cls(eps=0.5, loss=loss, targeted=True, **options)
        np.testing.assert_array_equal(
            classify(own_pixel, attack(own_pixel, PIXELS, BRIGHTEST, targets)), targets
        )


def test_the_targeted_dlr_reaches_its_targets(own_pixel):
    targets = (BRIGHTEST + 1) % 4
    attack = PGD(eps=0.5, steps=40, step_size=0.05, loss="dlr", targeted=True, keep_best=True)
    found = own_pixel(attack(own_pixel, PIXELS, BRIGHTEST, targets)).numpy()
    rows = np.arange(12)
    assert (found[rows, targets] > found[rows, BRIGHTEST]).all()


def test_multi_targeted_finds_what_the_untargeted_climb_misses(linear):
    """The nearest other class is never reached, and the way to it does not lead to the one that is."""
    weights = np.float32([[0, 1, 0.4], [0, 1, -0.4]])  # within 0.35, class 1 gets to 0.1 and class 2 to -0.02
    model = linear(weights, (2, 1, 1), bias=[0, -1.2, -0.3])
    images, labels = np.full((1, 2, 1, 1), 0.3, "float32"), np.array([0])
    options = {"eps": 0.35, "steps": 10, "loss": "margin", "start": None}
    assert classify(model, PGD(**options)(model, images, labels)) == [0]
    assert classify(model, MultiTargeted(**options)(model, images, labels)) == [1]


def test_random_targets_are_other_classes_and_many_of_them():
    model = keras.Sequential([keras.Input((1, 1, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    labels = np.arange(200) % 10
    attack = RandomTargeted(eps=0.1, restarts=2)
    first, second = attack._attempts(model, None, labels, None, Noise((0, 0)))
    assert (first != labels).all() and (second != labels).all() and (first != second).any()
    for key in ((1, 0), (0, 1)):
        assert (first != next(attack._attempts(model, None, labels, None, Noise(key)))).any(), "drawn anew"
    assert set(first) == set(range(10)) and first.dtype == labels.dtype


def test_multi_targeted_keeps_its_first_success(own_pixel):
    """Only class 2 is in reach, and the climb towards class 3 that would follow ends elsewhere."""
    images = np.float32([0.6, 0.3, 0.59, 0.3]).reshape(1, 2, 2, 1)
    found = MultiTargeted(eps=0.02, steps=5)(own_pixel, images, np.array([0]))
    assert classify(own_pixel, found) == [2]


# In a training step


def test_perturb_in_a_graph_equals_the_call(conv_classifier):
    attack = PGD(eps=0.1, steps=3)

    @tf.function
    def perturb(images, labels, step):
        return attack.perturb(conv_classifier, images, labels, Noise((4, step)).fold(0))

    found = perturb(tf.constant(PICTURES), tf.constant(FIVE), tf.constant(0))
    np.testing.assert_allclose(found, attack(conv_classifier, PICTURES, FIVE, seed=4), atol=1e-5)


def test_perturb_gives_no_gradient(conv_classifier):
    images = tf.constant(PICTURES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        found = PGD(eps=0.1, steps=1).perturb(conv_classifier, images, tf.constant(FIVE), Noise((0, 0)))
    assert tape.gradient(found, [images, *conv_classifier.trainable_variables]) == [None] * (
        1 + len(conv_classifier.trainable_variables)
    )


def test_bfloat16_models_are_attacked_in_float32():
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(2, dtype="mixed_bfloat16"),
        ]
    )
    model.layers[-1].set_weights([WEIGHTS, np.zeros(2)])
    expected = np.clip(IMAGES + 0.1 * np.sign(uphill(LABELS)), 0, 1)
    np.testing.assert_allclose(FGSM(eps=0.1)(model, IMAGES, LABELS), expected, atol=1e-6)


def test_the_l2_step_survives_a_saturated_softmax(linear):
    """The gradient of a confident model is far below 1e-12, and still points somewhere."""
    weights = np.float32([[27, -27], [6, -6]])
    images, labels = np.full((1, 2, 1, 1), 0.9, "float32"), np.array([0])
    found = BIM(eps=0.5, steps=10, norm="l2")(linear(weights, (2, 1, 1)), images, labels)
    np.testing.assert_allclose(
        (images - found).reshape(2), 0.5 * np.array([4.5, 1]) / np.hypot(4.5, 1), atol=1e-4
    )


# Models that cannot be attacked


def ending_in(last):
    images = keras.Input((2, 2, 1))
    return keras.Model(images, last(keras.layers.Dense(4)(keras.layers.Flatten()(images))))


def two_outputs():
    images = keras.Input((2, 2, 1))
    logits = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    return keras.Model(images, [logits, logits])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "at_digits", "must be a built keras.Model. Received: 'at_digits'"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "must be a built keras.Model"),
        (two_outputs, "must have one input and one output"),
        (
            lambda: keras.Sequential(
                [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")]
            ),
            "outputs probabilities where logits are expected",
        ),
        (lambda: ending_in(keras.ops.softmax), "outputs probabilities where logits are expected"),
        (lambda: ending_in(keras.layers.Lambda(lambda z: z[:, :1])), "K >= 2 classes, received shape"),
        (
            lambda: keras.Sequential([keras.Input((None, None, 1)), keras.layers.Flatten()]),
            "K >= 2 classes, received shape",
        ),
    ],
)
@pytest.mark.parametrize("attack", [PGD(eps=0.1), RayS(eps=0.1, queries=20)])
def test_what_cannot_be_attacked_is_told(attack, make, message):
    model = make()
    if isinstance(attack, RayS) and not isinstance(model, keras.Model):
        message = "RayS takes a keras.Model or a function"
    with pytest.raises(InputError, match=message):
        attack(model, np.full((1, 2, 2, 1), 0.5, "float32"), np.array([0]))


@pytest.mark.parametrize("version", ["standard", "plus", "rand", "fast"])
def test_autoattack_is_for_enough_classes_and_says_so_at_once(linear, version):
    images, labels = np.full((1, 2, 2, 1), 0.5, "float32"), np.array([0])
    least = 3 if version == "rand" else 4
    few = linear(np.eye(4, least - 1, dtype="float32"), (2, 2, 1))
    with pytest.raises(InputError, match=f"AutoAttack is for {least} classes or more. Received: a model of"):
        AutoAttack(eps=0.1, version=version)(few, images, labels)
    assert trace_count(few) == 0
    with pytest.raises(InputError, match=f"AutoAttack is for {least} classes"):
        evaluate(few, (images, labels), ["pgd-2", f"autoattack-{version}"], eps=0.1, progress=False)
    assert trace_count(few) == 0


def test_images_of_another_precision_have_a_graph_of_their_own(digits_classifier, digits):
    images, labels = digits[0][:5], digits[1][:5]
    for dtype in ("float64", "float32", "float64"):
        again = classify(digits_classifier, images.astype(dtype))
        np.testing.assert_array_equal(again, classify(digits_classifier, images))
    PGD(eps=0.1, steps=2, restarts=2)(digits_classifier, images, labels)


@dataclass(frozen=True)
class ByNumber(Objective):
    """The first logit in a batch of three, and minus it in any other."""

    coupled = True

    def __call__(self, view, goal):
        return tf.where(tf.shape(view.logits)[0] == 3, 1.0, -1.0) * view.logits[:, 0]


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_examples_that_depend_on_each_other_are_not_repeated_under_xla(conv_classifier, attack):
    rng = np.random.default_rng(0)
    images, labels = rng.random((3, 8, 8, 1), "float32"), np.array([0, 1, 2])
    plain, xla = (
        attack(eps=0.1, steps=2, loss=ByNumber(), jit_compile=jit)(conv_classifier, images, labels)
        for jit in (False, True)
    )
    np.testing.assert_allclose(xla, plain, atol=1e-4)


def test_images_of_another_size_have_a_graph_of_their_own():
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    )
    for size in (5, 7, 5):
        images = np.full((2, size, size, 1), 0.5, "float32")
        found = PGD(eps=0.1, steps=2)(model, images, np.array([0, 1]))
        assert found.shape == images.shape and np.abs(found - images).max() > 0


def still(**options):
    """A step that moves nothing to speak of: what is found is where it began."""
    return PGD(eps=0.1, steps=1, step_size=1e-9, **options)


def test_a_normal_start_is_as_far_away_as_that_of_trades(two_classes):
    images = np.full((200, *SHAPE), 0.5, "float32")
    drawn = still(start="normal")(two_classes, images, np.zeros(200, int)) - images
    assert drawn.std() == pytest.approx(0.001, rel=0.1) and abs(drawn.mean()) < 1e-4


def test_every_batch_draws_for_itself(two_classes):
    images = np.full((2, *SHAPE), 0.5, "float32")
    one, other = still()(two_classes, images, np.zeros(2, int), batch_size=1)
    assert np.abs(one - other).max() > 0.01
