"""ER-Classifier, its variants and its baselines: whose weights a move changes, and by how much."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from defense_building import ADVERSARY, CLASSES, batch, build, classifier

from keras_robust import models
from keras_robust.attacks import PGD
from keras_robust.defenses import RSE, VAECLA, ERClassifier
from keras_robust.defenses.rates import AdjustedSchedule, copied, pace
from keras_robust.errors import InputError
from keras_robust.layers import CodeMean
from keras_robust.models import build_critic
from keras_robust.noise import Noise

IMAGES, LABELS = batch()
RATE, LIMIT, WEIGHT = 0.1, 0.02, 0.5
DIM = 6
TINY = {"width": 8, "depth": 2}
WITHOUT_CRITIC = {"critic_weight": 0.0, "regularization_weight": 0.0}
VARIANTS = {  # name: (options, terms, sides that the critic sees)
    "er": ({}, ["adversarial", "critic", "regularization"], ["adversarial"]),
    "er_minus": (
        {"clean_weight": 1.0, "adversarial_weight": 0.0},
        ["clean", "critic", "regularization"],
        ["clean"],
    ),
    "er_trades": (
        {"clean_weight": 1.0, "adversarial_weight": 0.0, "robustness_weight": 2.0},
        ["clean", "robustness", "critic", "regularization"],
        ["adversarial"],
    ),
    "code": (
        {"clean_weight": 0.5, "adversarial_weight": 0.5},
        ["clean", "adversarial", "critic", "regularization"],
        ["clean", "adversarial"],
    ),
    "e_cla": ({"clean_weight": 1.0, "adversarial_weight": 0.0, **WITHOUT_CRITIC}, ["clean"], None),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def make(variant="er", rate=RATE, optimizers=None, **options):
    settings = {"critic": TINY, "clip": LIMIT, "regularization_weight": WEIGHT, "seed": 4}
    defense = build("er_classifier", **{**settings, **VARIANTS[variant][0], **options})
    defense.compile(keras.optimizers.SGD(rate), optimizers=optimizers, run_eagerly=True)
    return defense


def fit(defense, **options):
    return defense.fit(IMAGES, LABELS, batch_size=8, shuffle=False, verbose=0, **options)


def weights(defense):
    return {player: model.get_weights() for player, model in defense.players().items()}


def moved(before, after):
    return {
        player
        for player, old in before.items()
        if any((a != b).any() for a, b in zip(old, after[player], strict=True))
    }


# Players


def test_each_move_changes_only_its_own_players_in_the_order_of_the_paper():
    defense = make()
    seen = []
    one = defense._batch((IMAGES, LABELS), training=True)
    for move in defense.moves():
        before = weights(defense)
        defense._descend(move, one)
        seen.append(moved(before, weights(defense)))
        assert seen[-1] == set(move.players)
    assert seen == [{"critic"}, {"encoder", "head"}, {"encoder"}]
    assert {player: int(defense.optimizer_of(player).iterations) for player in defense.players()} == {
        "encoder": 2,
        "head": 1,
        "critic": 1,
    }


@pytest.mark.parametrize("steps", [1, 3])
def test_the_clip_holds_after_every_step_of_the_critic(steps, monkeypatch):
    defense = make(critic_steps=steps)
    assert max(np.abs(one).max() for one in defense.critic.get_weights()) > LIMIT
    largest = []
    reduced = defense._reduced

    def watched(move, one):
        if move.players != ("critic",) or largest:
            largest.append(max(np.abs(weight).max() for weight in defense.critic.get_weights()))
        else:
            largest.append(0.0)
        return reduced(move, one)

    monkeypatch.setattr(defense, "_reduced", watched)
    fit(defense)
    assert len(largest) == steps + 2
    assert max(largest) <= np.float32(LIMIT)
    assert int(defense.optimizer_of("critic").iterations) == steps


@every_variant
def test_a_variant_is_a_choice_of_weights(variant):
    _, terms, sides = VARIANTS[variant]
    needs = any(side != "clean" for side in sides or ("clean",))
    defense = make(variant)
    assert defense.active_terms == terms
    assert defense.needs_adversary == needs
    assert list(defense.players()) == ["encoder", "head", "critic"][: 3 if sides else 2]
    assert sides is None or list(defense.sides) == sides
    history = fit(defense).history
    assert {*terms, "loss"} <= set(history) and np.isfinite(list(history.values())).all()
    copy = ERClassifier.from_config(defense.get_config())
    assert copy.get_config() == defense.get_config()


def test_without_need_of_an_adversary_none_is_asked_for():
    build("er_classifier", adversary=None, critic=TINY, **VARIANTS["er_minus"][0])
    with pytest.raises(InputError, match="needs an adversary"):
        build("er_classifier", adversary=None, critic=TINY)


# One step by hand


def encode(q, images):
    return tf.nn.relu(tf.reshape(images, (len(images), -1)) @ q[0] + q[1])


def logits_of(c, codes):
    return codes @ c[0] + c[1]


def score(d, codes):
    hidden = codes
    for kernel, bias in zip(d[:-2:2], d[1:-2:2], strict=True):
        hidden = tf.nn.relu(hidden @ kernel + bias)
    return (hidden @ d[-2] + d[-1])[:, 0]


def cross_entropy(labels, scores):
    return -tf.reduce_mean(tf.gather(tf.nn.log_softmax(scores), labels, batch_dims=1))


def divergence(scores, others):
    p, log_p, log_q = tf.nn.softmax(scores), tf.nn.log_softmax(scores), tf.nn.log_softmax(others)
    return tf.reduce_mean(tf.reduce_sum(p * (log_p - log_q), axis=1))


def descend(loss, variables, rates):
    with tf.GradientTape() as tape:
        tape.watch(variables)
        value = loss(variables)
    gradients = tape.gradient(value, variables)
    return [
        [one - rate * slope for one, slope in zip(group, slopes, strict=True)]
        for group, slopes, rate in zip(variables, gradients, rates, strict=True)
    ]


LOSSES = {
    "er": lambda c, clean, attacked: cross_entropy(LABELS, logits_of(c, attacked)),
    "er_minus": lambda c, clean, attacked: cross_entropy(LABELS, logits_of(c, clean)),
    "er_trades": lambda c, clean, attacked: (
        cross_entropy(LABELS, logits_of(c, clean))
        + 2.0 * divergence(logits_of(c, clean), logits_of(c, attacked))
    ),
    "code": lambda c, clean, attacked: (
        0.5 * (cross_entropy(LABELS, logits_of(c, clean)) + cross_entropy(LABELS, logits_of(c, attacked)))
    ),
}


@pytest.mark.parametrize("variant", LOSSES)
def test_one_step_by_hand(variant):
    defense = make(variant)
    q, c, d = ([tf.constant(one) for one in group] for group in weights(defense).values())
    one = defense._batch((IMAGES, LABELS), training=True)
    adversarial = IMAGES if one.adversarial is None else one.adversarial
    sides = [{"clean": IMAGES, "adversarial": adversarial}[side] for side in VARIANTS[variant][2]]
    noise = Noise((4, 0))
    noise.draws = one.noise.draws  # those that the adversary took
    draws = [noise.normal((8, DIM)) for _ in sides]

    def critic_loss(groups):
        codes = [encode(q, images) for images in sides]
        pairs = zip(codes, draws, strict=True)
        return sum(tf.reduce_mean(score(groups[0], x) - score(groups[0], z)) for x, z in pairs) / len(sides)

    (d,) = descend(critic_loss, [d], [0.5 * RATE])
    d = [tf.clip_by_value(one, -LIMIT, LIMIT) for one in d]
    loss = LOSSES[variant]
    q, c = descend(
        lambda groups: loss(groups[1], encode(groups[0], IMAGES), encode(groups[0], adversarial)),
        [q, c],
        [RATE, 0.05 * RATE],
    )
    (q,) = descend(
        lambda groups: (
            -WEIGHT * sum(tf.reduce_mean(score(d, encode(groups[0], x))) for x in sides) / len(sides)
        ),
        [q],
        [RATE],
    )
    fit(defense)
    for player, expected in zip(weights(defense).values(), (q, c, d), strict=True):
        for found, wanted in zip(player, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prior", ["normal", "uniform"])  # the other has no mean to come near to
def test_codes_are_drawn_to_the_prior(prior):
    random.seed(0)
    encoder = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    head = keras.Sequential([keras.Input((2,)), keras.layers.Dense(CLASSES)])
    encoder.layers[-1].bias.assign([8.0, -8.0])
    defense = ERClassifier(
        models.LatentClassifier(encoder, head),
        critic={"width": 32, "depth": 1},
        prior=prior,
        clean_weight=1e-6,
        adversarial_weight=0.0,
        regularization_weight=10.0,
        clip=0.1,
        critic_steps=3,
        critic_rate=1.0,
    )
    images, labels = batch(256)
    defense.compile(keras.optimizers.Adam(0.02))
    defense.fit(images, labels, batch_size=64, epochs=40, shuffle=False, verbose=0)
    assert (np.abs(np.median(encoder.predict(images, verbose=0), axis=0)) < 4).all()


# Rates


def test_encoder_critic_and_head_have_the_rates_of_the_code():
    defense = make(rate=1.0)
    rates = {player: float(defense.optimizer_of(player).learning_rate) for player in defense.players()}
    assert rates == pytest.approx({"encoder": 1.0, "head": 0.05, "critic": 0.5})
    given = make(optimizers={"critic": keras.optimizers.Adam(0.3)})
    assert float(given.optimizer_of("critic").learning_rate) == pytest.approx(0.3)


def test_a_schedule_counts_batches_for_every_player():
    drop = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.1])
    defense = build("er_classifier", critic=TINY)
    defense.compile(keras.optimizers.SGD(drop), run_eagerly=True)
    found = []
    for _ in range(3):
        rates = {player: float(defense.optimizer_of(player).learning_rate) for player in defense.players()}
        found.append(list(rates.values()))
        fit(defense)
    expected = [[1.0, 0.05, 0.5], [1.0, 0.05, 0.5], [0.1, 0.005, 0.05]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_schedule_is_adjusted_once():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.1])
    optimizer = copied(keras.optimizers.SGD(schedule), 0.5)
    pace(optimizer, 2)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    pace(again, 2)
    first = copied(optimizer)
    pace(first, 1)  # as a second compile with the same optimizer does for another player
    assert [round(float(first._learning_rate(step)), 3) for step in range(3)] == [0.5, 0.5, 0.05]
    for one in (optimizer, again):
        rate = one._learning_rate
        assert isinstance(rate, AdjustedSchedule) and rate.steps_per_batch == 2
        assert [round(float(rate(step)), 3) for step in range(6)] == [0.5, 0.5, 0.5, 0.5, 0.05, 0.05]


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "gauss"}, "Unknown prior: 'gauss'"),
        ({"critic_weight": 0.0}, "both > 0, or both 0"),
        ({"clean_weight": 0.0, "adversarial_weight": 0.0}, "C learns nothing"),
        ({"head_rate": 0}, "head_rate must be a finite number > 0"),
        ({"critic_steps": 0}, "critic_steps must be an integer >= 1"),
        ({"clip": -1}, "clip must be a finite number > 0"),
        ({"critic": {"widht": 3}}, "Unknown option of critic: 'widht'. Did you mean 'width'"),
        ({"critic": keras.Sequential([keras.layers.Dense(1)])}, "Received: one that is not built"),
        ({"critic": "deep"}, "critic must be a keras.Model or a mapping"),
        ({"critic": build_critic(3, width=2)}, r"must map codes \(B, 6\) to scores"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(InputError, match=message):
        build("er_classifier", **options)


def test_a_head_and_a_flat_code_are_needed():
    whole = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    with pytest.raises(InputError, match="ERClassifier needs"):
        ERClassifier(whole, ADVERSARY)
    with pytest.raises(InputError, match="needs a flat latent"):
        ERClassifier(models.build("cnn_4c3f", latent="2C"), ADVERSARY)


# VAE-CLA


def test_vae_cla_by_hand():
    defense = build("vae_cla", divergence_weight=0.3, seed=4)
    assert isinstance(defense, VAECLA)
    start = defense.classifier.get_weights()
    noise = Noise((4, 0)).normal((8, DIM))

    def loss(groups):
        moments = tf.reshape(IMAGES, (8, -1)) @ groups[0][0] + groups[0][1]
        mean, log_variance = moments[:, :DIM], moments[:, DIM:]
        codes = mean + tf.exp(log_variance / 2) * noise
        apart = tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1 - log_variance, axis=1) / 2
        return cross_entropy(LABELS, logits_of(groups[0][2:], codes)) + 0.3 * tf.reduce_mean(apart)

    (expected,) = descend(loss, [[tf.constant(one) for one in start]], [RATE])
    defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    fit(defense)
    for found, wanted in zip(defense.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_vae_cla_deploys_the_mean_and_needs_moments():
    made = classifier(latent=CodeMean)
    assert made.encoder.output_shape == (None, DIM)
    np.testing.assert_array_equal(made(IMAGES), made(IMAGES))
    with pytest.raises(InputError, match="whose latent a layer CodeMean gives"):
        VAECLA(classifier())
    with_centers = models.build("er_cnn", variational=True, filters=2, head={"name": "cosine_centers"})
    with pytest.raises(InputError, match="the option variational and no head"):
        VAECLA(with_centers)


# RSE


def test_rse_trains_under_noise_and_deploys_an_ensemble():
    runs = []
    for first in (0.0, 0.5):
        defense = build("rse", first=first)
        defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
        fit(defense)
        runs.append(defense)
    quiet, noisy = (defense.classifier.get_weights() for defense in runs)
    assert any((a != b).any() for a, b in zip(quiet, noisy, strict=True))
    variants = runs[1].classifier.variants
    assert list(variants) == ["ensemble", "single"] and variants["single"] is None
    wrapper = dict(variants["ensemble"]["wrapper"])
    ensemble = models.wrappers[wrapper.pop("name")](runs[1].classifier, **wrapper)
    assert np.asarray(ensemble(IMAGES) != ensemble(IMAGES)).any()
    found = PGD(eps=0.1, steps=2, samples=2)(ensemble, IMAGES, LABELS)
    assert found.shape == IMAGES.shape


def test_rse_repeats_and_resumes(tmp_path):
    def run(epochs, path=None, first=0):
        defense = build("rse", first=0.3, inner=0.3, seed=3)
        defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
        if path:
            defense.load_weights(path)
        fit(defense, epochs=epochs, initial_epoch=first)
        return defense

    whole, half = run(2), run(1)
    half.save_weights(tmp_path / "half.weights.h5")
    resumed = run(2, tmp_path / "half.weights.h5", first=1)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_rse_checks_its_options():
    for options, message in {("inner", -1.0): "inner must be", ("passes", 0): "passes must be"}.items():
        with pytest.raises(InputError, match=message):
            RSE(classifier(), **dict([options]))
