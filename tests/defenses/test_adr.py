"""A step of ADR equals its formula, written out with all pairs at once, for every switch."""

import random
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from defense_building import ADVERSARY, CLASSES, SHAPE, batch, build, classifier
from test_defense_steps import EPS, RATE, SEED, STEP_SIZE, STEPS, by_hand, cross_entropy, divergence, logits

from keras_robust.attacks import PGD, Adaptive, get_objective
from keras_robust.defenses import ADR
from keras_robust.errors import InputError
from keras_robust.models import split

NONE = {"local_weight": 0, "global_weight": 0, "smoothness_weight": 0}
CASES = {
    "default": {},
    "none": NONE,
    "local": {**NONE, "local_weight": 2.0},
    "global": {**NONE, "global_weight": 2.0},
    "smoothness": {**NONE, "smoothness_weight": 2.0},
    "confidence": {**NONE, "confidence_weight": 2.0},
    "global smoothness": {**NONE, "global_smoothness_weight": 2.0},
    "all": {"confidence_weight": 0.5, "global_smoothness_weight": 0.25},
    "trades": {"base": "trades", "beta": 3.0},
    "halved": {"cross_entropy_weight": 0.5},
    "order 2": {"norm": 2},
    "order inf": {"norm": "inf"},
    "alpha": {"alpha": 0.6, "global_smoothness_weight": 1.0},
    "both move": {"stop_gradient": False, "global_smoothness_weight": 1.0},
    "clean pairs": {"pairs": "clean_clean"},
    "both entropies": {"confidence_weight": 1.0, "entropy_of": "both"},
}


def latent(weights, images):
    return tf.nn.relu(tf.reshape(images, (len(images), -1)) @ weights[0] + weights[1])


def size(differences, norm):
    if norm == 1:
        return tf.reduce_mean(tf.abs(differences), -1)
    if norm == 2:
        return tf.sqrt(tf.reduce_mean(differences**2, -1) + 1e-20)
    return tf.reduce_max(tf.abs(differences), -1)


def entropy(scores):
    return -tf.reduce_sum(tf.nn.softmax(scores) * tf.nn.log_softmax(scores), -1)


def formula(
    local_weight=1.0,
    global_weight=1.0,
    smoothness_weight=1.0,
    confidence_weight=0.0,
    global_smoothness_weight=0.0,
    base="adv",
    beta=1.0,
    cross_entropy_weight=1.0,
    norm=1,
    alpha=0.99,
    stop_gradient=True,
    pairs="clean_adversarial",
    entropy_of="adversarial",
):
    """The loss per example as a function of (weights, images, labels, adversarial)."""

    def loss(weights, images, labels, adversarial):
        h, h_adv = logits(weights, images), logits(weights, adversarial)
        z, z_adv = latent(weights, images), latent(weights, adversarial)
        held = tf.stop_gradient if stop_gradient else tf.identity
        w = tf.where(labels[:, None] == labels[None], 1.0, (alpha - 1) / alpha)
        if pairs == "clean_clean":
            pair_sizes = size(z[:, None] - z[None] + 0.0, norm)
        else:
            pair_sizes = size(held(z)[:, None] - z_adv[None], norm)
        p, log_p, log_q = tf.nn.softmax(held(h)), tf.nn.log_softmax(held(h)), tf.nn.log_softmax(h_adv)
        pair_divergences = tf.reduce_sum(p[:, None] * (log_p[:, None] - log_q[None]), -1)
        value = cross_entropy_weight * cross_entropy(labels, h)
        if base == "adv":
            value += cross_entropy_weight * cross_entropy(labels, h_adv)
        else:
            value += beta * divergence(h, h_adv)
        value += local_weight * size(held(z) - z_adv, norm)
        value += global_weight * tf.reduce_mean(w * pair_sizes, 0)
        value += smoothness_weight * divergence(held(h), h_adv)
        value += confidence_weight * entropy(h_adv)
        if entropy_of == "both":
            value += confidence_weight * entropy(h)
        return value + global_smoothness_weight * tf.reduce_mean(w * pair_divergences, 0)

    return loss


def stepped(name, climbed="cross_entropy", **options):
    adversary = PGD(eps=EPS, steps=STEPS, step_size=STEP_SIZE, loss=climbed)
    defense = build(name, adversary=adversary, seed=SEED, **options)
    start = defense.classifier.get_weights()
    defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    logs = defense.fit(*batch(), batch_size=8, shuffle=False, verbose=0).history
    return start, defense, logs


def climbed_by(case):
    return "kl" if CASES[case].get("base") == "trades" else "cross_entropy"


@cache
def step_of(case):
    return stepped("adr", climbed_by(case), **CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_one_step_by_hand(case):
    options, climbed = CASES[case], climbed_by(case)
    start, defense, logs = step_of(case)
    expected_loss, expected = by_hand(formula(**options), climbed, start, *batch(), np.ones(8, "float32"))
    assert logs["loss"] == pytest.approx([expected_loss], rel=1e-5)
    for weight, by_oracle in zip(defense.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, by_oracle, rtol=0, atol=1e-6)


def test_every_option_matters():
    """Otherwise a step by hand could not tell its switch from the default."""
    ends = {case: step_of(case)[1].classifier.get_weights() for case in CASES}
    for case, end in ends.items():
        for other, another in ends.items():
            same = all(np.allclose(*pair, rtol=0, atol=1e-6) for pair in zip(end, another, strict=True))
            assert same == (case == other), (case, other)


def test_without_its_terms_it_is_adversarial_training():
    _, plain, plain_logs = stepped("adversarial_training")
    _, adr, logs = stepped("adr", **NONE)
    assert logs == plain_logs
    for one, other in zip(plain.classifier.get_weights(), adr.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    _, plain, plain_logs = stepped("trades", "kl", beta=2.0)
    _, adr, logs = stepped("adr", "kl", base="trades", beta=2.0, **NONE)
    assert logs == plain_logs
    for one, other in zip(plain.classifier.get_weights(), adr.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_of_one_class_is_a_batch():
    images, labels = batch()
    defense = build("adr", global_smoothness_weight=1.0)
    defense.compile(keras.optimizers.SGD(RATE))
    logs = defense.fit(images, np.zeros_like(labels), batch_size=4, verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())
    assert all(np.isfinite(weight).all() for weight in defense.classifier.get_weights())


# What it declares to an attacker


def test_an_attacker_climbs_what_training_held_down():
    def declared(**options):
        return [get_objective(config).label for config in build("adr", **options).adaptive_objectives()]

    assert declared(**NONE) == ["cross_entropy"]
    assert declared() == ["1 cross_entropy + 1 kl + 1 local_compactness", "cross_entropy"]
    assert declared(base="trades", beta=2.0, local_weight=0.5, norm=2) == [
        "1 cross_entropy + 3 kl + 0.5 local_compactness",
        "cross_entropy",
    ]
    assert declared(**{**NONE, "smoothness_weight": 0.5})[0] == "1 cross_entropy + 0.5 kl"
    assert declared(**{**NONE, "confidence_weight": 2.0, "cross_entropy_weight": 0.5}) == [
        "0.5 cross_entropy + 2 entropy",
        "cross_entropy",
    ]


def test_its_adaptive_attack_runs():
    images, labels = batch()
    defense = build("adr", norm="inf")
    defense.compile("sgd")
    attack = Adaptive(eps=0.1, steps=3, **Adaptive.options_for(defense.classifier))
    adversarial = attack(defense.classifier, images, labels)
    assert np.abs(adversarial - images).max() == pytest.approx(0.1, abs=1e-6)


def test_the_distance_climbed_is_that_of_the_latents():
    images, _ = batch()
    model = classifier()
    found = PGD(eps=0.3, steps=5, loss={"name": "local_compactness", "norm": 2})(
        model, images, np.zeros(8, "int32")
    )
    start = PGD(eps=0.3, steps=1, step_size=1e-6, loss="local_compactness")(
        model, images, np.zeros(8, "int32")
    )

    def moved(adversarial):
        return np.sqrt(((model.encoder(adversarial) - model.encoder(images)).numpy() ** 2).mean(1))

    assert (moved(found) > moved(start)).all()


# What it refuses


def plain_model():
    random.seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(5, name="features"), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input(SHAPE), *layers])


def test_a_classifier_without_latent_is_told_what_to_do():
    with pytest.raises(InputError, match=r"ADR .*needs the latent.*models.split.*Received: <Sequential"):
        ADR(plain_model(), ADVERSARY)
    with pytest.raises(InputError, match="needs the latent"):
        ADR(plain_model(), ADVERSARY, **{**NONE, "global_weight": 1.0})
    for defense in (
        ADR(split(plain_model(), at="features"), ADVERSARY),
        ADR(plain_model(), ADVERSARY, **NONE),
    ):
        defense.compile("sgd", run_eagerly=True)
        assert np.isfinite(defense.fit(*batch(), verbose=0).history["loss"]).all()


def test_the_objective_needs_a_latent():
    with pytest.raises(InputError, match="climbs in the latent of a LatentClassifier"):
        PGD(eps=0.1, loss="local_compactness")(plain_model(), *batch())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "adw"}, "Unknown base of ADR: 'adw'. Did you mean 'adv'"),
        ({"pairs": "clean"}, "Unknown pairs of ADR: 'clean'.*clean_adversarial, clean_clean"),
        ({"entropy_of": "clean"}, "Unknown entropy_of of ADR: 'clean'.*adversarial, both"),
        ({"norm": 3}, "norm=3"),
        ({"alpha": 0}, "alpha=0"),
        ({"local_weight": -1}, "'local' must be a finite number >= 0"),
    ],
)
def test_wrong_options_are_told(options, words):
    with pytest.raises(InputError, match=words):
        build("adr", **options)
