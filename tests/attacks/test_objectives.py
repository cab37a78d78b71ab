"""What holds for every registered objective, and for callables and Keras losses in its place."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from keras_robust import losses
from keras_robust.attacks import PGD, Evasion, Goal, View, objectives
from keras_robust.attacks.ascent import aim
from keras_robust.attacks.center_objectives import OnCosines
from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.attacks.objective import Objective, Weighted, get_objective, to_config
from keras_robust.attacks.view import observe
from keras_robust.errors import InputError
from keras_robust.noise import Noise

rng = np.random.default_rng(1)
IMAGES = rng.uniform(size=(5, 8, 8, 1)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 4], "int32")
TARGETS = np.array([1, 2, 3, 4, 0], "int32")
LOGITS = rng.normal(scale=2, size=(5, 5)).astype("float32")
CLEAN = rng.normal(scale=2, size=(5, 5)).astype("float32")


def minus_true_logit(labels, logits):
    return -keras.ops.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


SUM = {"name": "weighted", "objectives": ["cross_entropy", "kl"], "weights": [1.0, 6.0]}
ANY = {name: name for name in objectives if name != "weighted"} | {
    "weighted": SUM,
    "instance": get_objective("margin"),
    "callable": minus_true_logit,
    "keras_robust loss": losses.Margin(confidence=5.0),
    "keras loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}
every_objective = pytest.mark.parametrize("loss", ANY.values(), ids=ANY)


def pick(logits, labels):
    return logits[np.arange(len(labels)), labels]


def best_other(logits, labels):
    return np.array([np.delete(row, label).max() for row, label in zip(logits, labels, strict=True)])


def kl(logits_p, logits_q):
    p, q = special.softmax(logits_p, axis=1), special.softmax(logits_q, axis=1)
    return special.rel_entr(p, q).sum(axis=1)


def spread(ranked, low):
    return ranked[:, 0] - ranked[:, low].mean(axis=1)


RANKED = -np.sort(-LOGITS, axis=1)
UNTARGETED = {
    "cross_entropy": -pick(special.log_softmax(LOGITS, axis=1), LABELS),
    "margin": -np.maximum(pick(LOGITS, LABELS) - best_other(LOGITS, LABELS) + 50, 0),
    "dlr": (best_other(LOGITS, LABELS) - pick(LOGITS, LABELS)) / spread(RANKED, [2]),
    "kl": kl(CLEAN, LOGITS),
    "reverse_kl": kl(LOGITS, CLEAN),
    "entropy": -(special.softmax(LOGITS, axis=1) * special.log_softmax(LOGITS, axis=1)).sum(axis=1),
    "most_confusing": pick(
        special.log_softmax(LOGITS, axis=1), np.where(np.eye(5)[LABELS] > 0, -np.inf, CLEAN).argmax(axis=1)
    ),
}
UNTARGETED["weighted"] = UNTARGETED["cross_entropy"] + 6 * UNTARGETED["kl"]
TARGETED = {
    "cross_entropy": pick(special.log_softmax(LOGITS, axis=1), TARGETS),
    "margin": -np.maximum(best_other(LOGITS, TARGETS) - pick(LOGITS, TARGETS) + 50, 0),
    "dlr": (pick(LOGITS, TARGETS) - pick(LOGITS, LABELS)) / spread(RANKED, [2, 3]),
}


@pytest.mark.parametrize(("name", "expected"), UNTARGETED.items())
def test_untargeted_values_equal_the_formula(name, expected):
    values = get_objective(ANY[name])(View(tf.constant(LOGITS)), Goal(LABELS, None, View(tf.constant(CLEAN))))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "expected"), TARGETED.items())
def test_targeted_values_equal_the_formula(name, expected):
    values = get_objective(name)(View(tf.constant(LOGITS)), Goal(LABELS, TARGETS))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_the_margin_has_no_gradient_beyond_its_confidence():
    logits = tf.constant([[0.0, 3.0], [0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = objectives["margin"](confidence=2.0)(View(logits), Goal(tf.constant([0, 0])))
    np.testing.assert_array_equal(tape.gradient(values, logits), [[0, 0], [-1, 1]])


@every_objective
def test_one_float32_value_for_each_example(conv_classifier, loss):
    objective = get_objective(loss)
    goal = aim(conv_classifier, objective, tf.constant(IMAGES), tf.constant(LABELS))
    values = objective(observe(conv_classifier, tf.constant(IMAGES)), goal)
    assert values.shape == (5,) and values.dtype == "float32"
    assert np.isfinite(values).all()


@every_objective
def test_examples_have_their_own_gradient(conv_classifier, loss):
    objective = get_objective(loss)
    if objective.coupled:
        pytest.skip("the examples of a batch interact")
    moved = tf.constant(np.clip(IMAGES + 0.05, 0, 1))

    def gradient(part):
        goal = aim(conv_classifier, objective, tf.constant(IMAGES[part]), tf.constant(LABELS[part]))
        return value_and_input_gradient(lambda x: objective(observe(conv_classifier, x), goal), moved[part])[
            1
        ]

    together = gradient(slice(None)).numpy()
    assert (abs(together).reshape(5, -1).max(axis=1) > 0).all()
    np.testing.assert_allclose(together[2:4], gradient(slice(2, 4)), rtol=1e-3, atol=1e-5)


@every_objective
def test_the_climb_raises_it(conv_classifier, loss):
    objective = get_objective(loss)
    labels = tf.constant(np.asarray(conv_classifier(IMAGES)).argmax(axis=1), tf.int32)
    goal = aim(conv_classifier, objective, tf.constant(IMAGES), labels)
    attack = PGD(eps=0.3, steps=5, loss=loss)
    start = attack.threat.random_start(IMAGES, Noise((0, 0)))
    found = attack.perturb(conv_classifier, tf.constant(IMAGES), labels, Noise((0, 0)))
    before, after = (objective(observe(conv_classifier, x), goal).numpy() for x in (start, found))
    assert (after > before).all()


@every_objective
def test_equal_objectives_share_a_key(loss):
    assert get_objective(loss) == get_objective(loss)
    assert hash(get_objective(loss)) == hash(get_objective(loss))


@pytest.mark.parametrize("loss", [minus_true_logit, losses.Margin(confidence=5.0)])
def test_a_callable_aims_at_targets_with_its_negative(loss):
    objective, view = get_objective(loss), View(tf.constant(LOGITS))
    function = getattr(loss, "call", loss)
    np.testing.assert_array_equal(objective(view, Goal(LABELS)), function(LABELS, LOGITS))
    np.testing.assert_array_equal(objective(view, Goal(LABELS, TARGETS)), -function(TARGETS, LOGITS))


@pytest.mark.parametrize("reduce", [keras.ops.mean, lambda values: values[:, None]])
def test_a_callable_must_give_one_value_for_each_example(conv_classifier, reduce):
    attack = PGD(eps=0.1, loss=lambda labels, logits: reduce(losses.cross_entropy(labels, logits)))
    with pytest.raises(InputError, match="one value per example"):
        attack(conv_classifier, IMAGES, LABELS)


@pytest.mark.parametrize("thing", [3, None, ["margin"]])
def test_anything_else_is_refused(thing):
    with pytest.raises(InputError, match="An attack's loss is a name"):
        get_objective(thing)


def test_options_that_no_field_tells_are_refused():
    class Signed(Objective):
        def __init__(self, sign):
            object.__setattr__(self, "sign", sign)

    with pytest.raises(InputError, match="Signed keeps sign, which no field of it tells"):
        get_objective(Signed(-1))


def test_the_base_is_abstract():
    with pytest.raises(NotImplementedError):
        Objective()(View(LOGITS), Goal(LABELS))


def test_a_sum_asks_for_what_its_parts_ask_for():
    assert get_objective(SUM).needs_clean and not get_objective(SUM).targetable
    plain = Weighted(["cross_entropy", {"name": "margin", "confidence": 3.0}], [1, -2])
    assert not plain.needs_clean and plain.targetable
    assert plain.label == "1 cross_entropy + -2 margin"
    sums = [Weighted(["cross_entropy", other], [1, 1]) for other in ("margin", "transport", "dlr")]
    assert [one.coupled for one in sums] == [False, True, False]
    assert [one.least_classes(targeted=False) for one in sums] == [2, 2, 3]
    assert [one.least_classes(targeted=True) for one in sums] == [2, 2, 4]


@pytest.mark.parametrize("around", [Evasion, OnCosines])
def test_what_is_around_an_objective_asks_for_what_it_asks_for(around):
    inner = [get_objective(name) for name in ("cross_entropy", "kl", "transport", "dlr")]
    for one, other in zip(map(around, inner), inner, strict=True):
        assert (one.needs_clean, one.targetable, one.coupled) == (
            other.needs_clean,
            other.targetable,
            other.coupled,
        )
        assert [one.least_classes(targeted) for targeted in (False, True)] == [
            other.least_classes(targeted) for targeted in (False, True)
        ]


@pytest.mark.parametrize("config", [SUM, {"name": "margin", "confidence": 3.0}, {"name": "kl"}])
def test_a_config_is_plain_data_that_reads_back(config):
    objective = get_objective(config)
    again = get_objective(json.loads(json.dumps(to_config(objective))))
    assert again == objective and hash(again) == hash(objective)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"weight": 1.0}, 'needs a "name"'),
        ({"name": "cross_entropi"}, "Did you mean 'cross_entropy'"),
        ({"name": "margin", "confidense": 1.0}, "Did you mean 'confidence'"),
        ({"name": "margin", "confidence": "much"}, "confidence"),
        ({"name": "weighted"}, "lacks objectives, weights"),
        ({"name": "weighted", "objectives": ["kl"], "weights": [1.0, 2.0]}, "as many finite weights"),
        ({"name": "weighted", "objectives": ["kl"], "weights": [float("nan")]}, "as many finite weights"),
    ],
)
def test_bad_configs_are_told(config, words):
    with pytest.raises(InputError, match=words):
        get_objective(config)
