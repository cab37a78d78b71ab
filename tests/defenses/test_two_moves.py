"""ATLD and LAT, whose steps are made of two moves, written out by hand."""

import random
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from defense_building import ADVERSARY, CLASSES, batch, build, classifier
from keras import layers

from keras_robust import losses
from keras_robust.attacks import PGD, VAT
from keras_robust.defenses import ATLD, LAT
from keras_robust.errors import InputError
from keras_robust.models import LatentClassifier, build_discriminator
from keras_robust.noise import Noise

EPS, RATE, CRITIC_RATE = 0.1, 0.2, 0.05
IMAGES, LABELS = batch()
FULL_STEP = PGD(eps=EPS, steps=1, step_size=EPS)
TARGETS = 0.25 + 0.25 * np.eye(CLASSES, dtype="float32")[LABELS]  # smoothing 0.5 over three classes


def hidden(weights, images):
    return tf.nn.relu(tf.reshape(images, (len(images), -1)) @ weights[0] + weights[1])


def head(weights, latent):
    return latent @ weights[2] + weights[3]


def logits(weights, images):
    return head(weights, hidden(weights, images))


def soft(scores):
    return -tf.reduce_mean(tf.reduce_sum(TARGETS * tf.nn.log_softmax(scores), axis=1))


def bound(clean, adversarial):
    return tf.reduce_mean(tf.math.log_sigmoid(clean) + tf.math.log_sigmoid(-adversarial)) + np.log(4)


def gradient(function, at):
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = function(at)
    return tape.gradient(value, at)


def descended(weights, loss, rate):
    weights = [tf.constant(weight) for weight in weights]
    return [w - rate * g for w, g in zip(weights, gradient(loss, weights), strict=True)]


def critic(size, with_classes=True):
    """A linear discriminator: kernel and bias of the score, then of the classes."""
    random.seed(5)
    latent = keras.Input((size,))
    outputs = {"manifold": layers.Reshape(())(layers.Dense(1)(latent))}
    if with_classes:
        outputs["classes"] = layers.Dense(CLASSES)(latent)
    return keras.Model(latent, outputs)


def score(weights, seen):
    return (seen @ weights[0] + weights[1])[:, 0]


def one_step(defense):
    defense.compile(
        keras.optimizers.SGD(RATE),
        optimizers={"discriminator": keras.optimizers.SGD(CRITIC_RATE)} if len(defense.players()) > 1 else {},
        run_eagerly=True,
    )
    return defense.fit(IMAGES, LABELS, batch_size=8, shuffle=False, verbose=0).history


@pytest.mark.parametrize("on", ["logits", "latent"])
@pytest.mark.parametrize("term", ["mse", "gan"])
@pytest.mark.parametrize("with_classes", [True, False])
@pytest.mark.parametrize("ratio_at", ["logits", "images"])
def test_a_step_of_atld(on, term, with_classes, ratio_at):
    defense = ATLD(
        classifier(),
        FULL_STEP,
        critic({"logits": CLASSES, "latent": 6}[on], with_classes),
        classifier_term=term,
        class_weight=float(with_classes),
        on=on,
        ratio_at=ratio_at,
        ratio_limit=30.0,
        seed=4,
    )
    start, judge = defense.classifier.get_weights(), defense.discriminator.get_weights()
    seen = {"logits": logits, "latent": hidden}[on]

    begun = tf.clip_by_value(IMAGES + EPS * Noise((4, 0)).uniform(IMAGES.shape, -1.0, 1.0), 0, 1)
    uphill = gradient(lambda x: tf.reduce_sum(tf.math.log_sigmoid(-score(judge, seen(start, x)))), begun)
    moved = tf.clip_by_value(
        tf.clip_by_value(begun + EPS * tf.sign(uphill), IMAGES - EPS, IMAGES + EPS), 0, 1
    )

    def matching(scores):
        return tf.reduce_mean(tf.square(scores - logits(start, IMAGES)))

    scores = logits(start, moved)
    if ratio_at == "logits":
        gradients = [gradient(loss, scores) for loss in (soft, matching)]
    else:
        gradients = [
            gradient(lambda x, loss=loss: loss(logits(start, x)), moved) for loss in (soft, matching)
        ]
    ratio = tf.reduce_max(gradients[0]) / tf.reduce_max(gradients[1])

    def classifier_loss(weights):
        scores = logits(weights, moved)
        if term == "mse":
            return soft(scores) + 0.5 * ratio * matching(scores)
        return soft(scores) + 0.5 * bound(
            score(judge, seen(weights, IMAGES)), score(judge, seen(weights, moved))
        )

    clean, adversarial = seen(start, IMAGES), seen(start, moved)

    def critic_loss(weights):
        loss = -bound(score(weights, clean), score(weights, adversarial))
        if with_classes:
            loss += sum(soft(z @ weights[2] + weights[3]) for z in (clean, adversarial))
        return loss

    expected = descended(start, classifier_loss, RATE)
    judged = descended(descended(judge, critic_loss, CRITIC_RATE), critic_loss, CRITIC_RATE)
    assert 0 < float(ratio) < 30, "or the limit would be what is tested"

    logs = one_step(defense)
    for found, by_hand in zip(defense.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=0, atol=2e-6)
    for found, by_hand in zip(defense.discriminator.get_weights(), judged, strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=0, atol=2e-6)
    assert logs["adversarial"] == pytest.approx([float(soft(scores))], rel=1e-5)


@pytest.mark.parametrize("ratio_at", ["logits", "images"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_images_pass_in_the_mode_that_is_asked_for(mode, ratio_at):
    """Seen by the moving averages of batch normalisation: one update for each pass in training."""
    random.seed(1)
    inputs = keras.Input((4, 4, 1))
    normalised = layers.BatchNormalization(momentum=0.5)(layers.Flatten()(inputs))
    model = LatentClassifier(
        keras.Model(inputs, normalised), keras.Sequential([keras.Input((16,)), layers.Dense(CLASSES)])
    )
    defense = ATLD(model, FULL_STEP, critic(CLASSES), clean_mode=mode, ratio_at=ratio_at, seed=4)
    moved = (
        np.asarray(defense._batch((IMAGES, LABELS), training=True).adversarial).reshape(8, -1).mean(axis=0)
    )
    one_step(defense)
    mean = model.get_weights()[2]
    expected = IMAGES.reshape(8, -1).mean(axis=0) / 2 if mode == "training" else 0.0
    for _ in range({"logits": 1, "images": 3}[ratio_at]):
        expected = expected / 2 + moved / 2
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)


def normalising_critic():
    """It sees whether clean and adversarial latents come in one pass: each alone has mean 0 behind it."""
    random.seed(5)
    latent = keras.Input((CLASSES,))
    normalised = layers.BatchNormalization(center=False, scale=False, epsilon=1e-3)(latent)
    return keras.Model(latent, {"manifold": layers.Reshape(())(layers.Dense(1)(normalised))})


def test_the_discriminator_of_atld_sees_both_in_one_pass_and_the_classifier_what_it_has_learnt():
    judge = normalising_critic()
    defense = ATLD(classifier(), FULL_STEP, judge, classifier_term="gan", class_weight=0.0, seed=4)
    prepared = defense._batch((IMAGES, LABELS), training=True)
    *_, kernel, bias = judge.get_weights()

    def judged(mean, variance):
        scores = (both - mean) / np.sqrt(variance + 1e-3) @ kernel + bias
        return losses.manifold_bound(scores[:8, 0], scores[8:, 0])

    for_classifier = defense.loss_terms(prepared)["matching"]
    for_judge = defense.discriminator_terms(prepared)["manifold"]
    views = [prepared.views[which].logits for which in ("clean", "adversarial")]
    both = np.concatenate([np.asarray(logits) for logits in views])
    np.testing.assert_allclose(for_classifier, judged(0.0, 1.0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(for_judge, -judged(both.mean(axis=0), both.var(axis=0)), rtol=1e-4, atol=1e-5)


def test_the_ratio_of_the_gradients_is_limited():
    for limit in (0.01, 0.02):
        defense = ATLD(classifier(), FULL_STEP, critic(CLASSES), ratio_limit=limit, seed=4)
        prepared = defense._batch((IMAGES, LABELS), training=True)
        found = defense.loss_terms(prepared)["matching"]
        clean, adversarial = (prepared.views[which].logits for which in ("clean", "adversarial"))
        np.testing.assert_allclose(found, limit * losses.logit_matching(clean, adversarial), rtol=1e-5)


def test_without_the_matching_term_atld_still_trains_both():
    defense = build("atld", matching_weight=0.0)
    before = [model.get_weights() for model in defense.players().values()]
    history = one_step(defense)
    assert "matching" not in history
    for old, model in zip(before, defense.players().values(), strict=True):
        assert any((a != b).any() for a, b in zip(old, model.get_weights(), strict=True))


def test_the_adversary_of_atld_needs_no_label():
    defense = build("atld", adversary=FULL_STEP)
    found = [
        defense._batch((IMAGES, labels), training=True).adversarial
        for labels in (LABELS, (LABELS + 1) % CLASSES)
    ]
    np.testing.assert_array_equal(*found)
    evaluated = [
        defense._batch((IMAGES, labels), training=False).adversarial
        for labels in (LABELS, (LABELS + 1) % CLASSES)
    ]
    assert (np.asarray(evaluated[0]) != np.asarray(evaluated[1])).any()


def test_the_discriminator_of_atld_has_its_own_optimizer():
    defense = build("atld", learning_rate=0.003)
    defense.compile(keras.optimizers.Adam(0.1))
    found = defense.optimizer_of("discriminator")
    assert isinstance(found, keras.optimizers.SGD)
    assert (float(found.learning_rate), found.momentum) == (pytest.approx(0.003), 0.9)


def test_the_discriminator_of_atld_is_built_of_options():
    options = {"name": "wide_resnet", "depth": 10, "width": 1}
    defense = build("atld", discriminator=options, on="latent", class_weight=0.0)
    assert defense.discriminator.name == "wide_resnet_10_1"
    assert defense.discriminator.input_shape == (None, 6)
    assert sorted(defense.discriminator.output) == ["manifold"]


def test_atld_hands_out_what_its_variants_are_made_of():
    from keras_robust.models import companions, wrappers

    defense = build("atld", adversary=FULL_STEP, on="latent", band=(0.3, 0.6))
    defense.compile("sgd")
    assert list(defense.classifier.variants) == ["static", "imt", "imt+"]
    judge = companions["discriminator"](**defense.classifier.companions["discriminator"].architecture)
    judge.set_weights(defense.discriminator.get_weights())
    for mode in ("imt", "imt+"):
        options = dict(defense.classifier.variants[mode]["wrapper"])
        model = wrappers[options.pop("name")](defense.classifier, judge, **options)
        step = model.transform
        assert (step.mode, step.eps, step.on) == (mode, EPS, "latent")
    assert step.band == (0.3, 0.6)


def test_a_discriminator_of_ones_own_is_no_companion():
    defense = build("atld", discriminator=critic(CLASSES))
    assert defense.companions() == defense.variants() == {}


def test_a_radius_in_another_norm_is_not_that_of_the_transform():
    adversary = replace(FULL_STEP, norm="l2")
    assert build("atld", adversary=adversary).variants() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier_term": "mae"}, "Unknown classifier_term of ATLD: 'mae'.*gan, mse"),
        ({"on": "logit"}, "Did you mean 'logits'"),
        ({"ratio_at": "weights"}, "Unknown ratio_at of ATLD"),
        ({"ratio_limit": 0}, "ratio_limit must be a finite number > 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number > 0"),
        ({"smoothing": 2}, "smoothing must be a number in"),
        ({"matching_weight": -1}, "'matching' must be a finite number >= 0"),
        ({"discriminator": {"name": "residual_mpl"}}, "Did you mean 'residual_mlp'"),
        ({"discriminator": {"name": "residual_mlp", "dept": 3}}, "Did you mean 'depth'"),
        ({"discriminator": {"name": "residual_mlp", "num_classes": 3}}, "'num_classes'"),
        ({"discriminator": "residual_mlp"}, "must be a keras.Model or a mapping with a name"),
        ({"discriminator": build_discriminator("residual_mlp", (3,))}, "has no class outputs"),
        (
            {"discriminator": build_discriminator("residual_mlp", (4,), 3)},
            "must take the logits of the classifier",
        ),
        ({"adversary": VAT(eps=0.1)}, "needs an adversary whose loss it can replace"),
    ],
)
def test_bad_options_of_atld_are_told(options, message):
    with pytest.raises(InputError, match=message):
        build("atld", **options)


# LAT


def test_a_step_of_lat():
    defense = LAT(classifier(), ADVERSARY, latent_eps=0.2, latent_steps=3, seed=4, latent_weight=0.7)
    start = [tf.constant(weight) for weight in defense.classifier.get_weights()]

    def hard(scores):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, scores))

    noise = Noise((4, 0))
    adversarial = ADVERSARY.perturb(defense.classifier, tf.constant(IMAGES), tf.constant(LABELS), noise)
    latent = hidden(start, IMAGES)
    span = tf.reduce_max(latent, axis=0) - tf.reduce_min(latent, axis=0)
    delta = 0.2 * span * noise.uniform(latent.shape, -1.0, 1.0)
    for _ in range(3):
        uphill = gradient(lambda moved: hard(head(start, latent + moved)), delta)
        delta = delta + 2.5 * 0.2 / 3 * span * tf.sign(uphill)
        delta = tf.clip_by_value(delta, -0.2 * span, 0.2 * span)

    halfway = descended(start, lambda w: 0.7 * hard(head(w, hidden(w, IMAGES) + delta)), RATE)
    expected = descended(halfway, lambda w: hard(logits(w, adversarial)), RATE)
    one_step(defense)
    for found, by_hand in zip(defense.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=0, atol=2e-6)


@pytest.mark.parametrize("left", ["latent", "adversarial"])
def test_a_step_of_lat_without_weight_is_not_made(left):
    adversary = ADVERSARY if left == "latent" else None
    defense = LAT(classifier(), adversary, **{f"{left}_weight": 0.0})
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([1], [RATE, 0.0])
    defense.compile(keras.optimizers.SGD(rate), metrics=["accuracy"])
    history = defense.fit(IMAGES, LABELS, batch_size=3, shuffle=False, verbose=0).history
    assert left not in history and "accuracy" in history
    assert ("adversarial_accuracy" in history) is (left == "latent")
    assert int(defense.optimizer.iterations) == 3, "one step a batch"
    assert float(defense.optimizer.learning_rate) == 0, "and the schedule counts batches"


def test_the_box_of_lat_is_that_of_each_channel_over_batch_and_positions():
    from keras_robust.defenses.lat import _channel_ranges

    latent = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype("float32")
    expected = latent.max(axis=(0, 1, 2)) - latent.min(axis=(0, 1, 2))
    np.testing.assert_allclose(_channel_ranges(latent)[0, 0, 0], expected)


@pytest.mark.parametrize(
    ("options", "message"), [({"latent_steps": 0}, "steps must be"), ({"latent_eps": -1}, "eps must be")]
)
def test_bad_options_of_lat_are_told(options, message):
    with pytest.raises(InputError, match=message):
        build("lat", **options)


def test_the_norms_of_tla_leave_out_a_negative_that_there_is_not():
    defense = build("tla", triplet_weight=0.0, norm_weight=1.0)
    defense.compile("sgd", run_eagerly=True)
    logs = defense.evaluate(IMAGES[:1], np.zeros(1, "int32"), return_dict=True, verbose=0)
    moved = ADVERSARY.perturb(defense.classifier, IMAGES[:1], np.zeros(1, "int32"), Noise((0, 0)))
    lengths = [
        np.linalg.norm(defense.classifier.latent_and_logits(images)[0]) for images in (IMAGES[:1], moved)
    ]
    assert logs["norms"] == pytest.approx(sum(lengths), rel=1e-5)


@pytest.mark.parametrize("name", ["lat", "tla"])
def test_a_classifier_without_latent_is_refused(name):
    from keras_robust.defenses import defenses

    plain = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(CLASSES)])
    with pytest.raises(InputError, match=r"keras_robust\.models\.split"):
        defenses[name](plain, ADVERSARY)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("atld", {"band": (0.9,)}, "band must be"),
        ("atld", {"band": 3}, "band must be"),
        ("tla", {"margin": -1}, "margin must be"),
        ("bilateral", {"label_mass": 1.5}, "label_mass must be a number in"),
        ("bilateral", {"gamma": 0}, "gamma must be"),
        ("feature_scattering", {"smoothing": -1}, "smoothing must be a number in"),
    ],
)
def test_bad_options_are_told(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, **options)
