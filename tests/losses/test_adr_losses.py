"""Compactness, entropy and smoothness against float64 oracles written from their formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from keras_robust import losses
from keras_robust.errors import InputError
from keras_robust.losses.feature_norm import pairwise_distance

rng = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 0], "int32")
SHAPES = [(6, 1), (6, 7), (6, 3, 2), (6, 2, 3, 2)]
NORMS = [1, 2, "inf"]
ALPHAS = [0.99, 0.5, 1.0]
LOGITS, OTHER = (rng.normal(scale=3, size=(6, 3)).astype("float32") for _ in range(2))
STEP = 1e-6

every_norm = pytest.mark.parametrize("norm", NORMS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"rank {len(shape)}, {shape[1:]}")
every_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def latents(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def size(difference, norm):
    flat = np.abs(np.ravel(difference)).astype("float64")
    return {1: flat.mean(), 2: np.sqrt((flat**2).mean()), "inf": flat.max()}[norm]


def weight(i, j, labels, alpha):
    return 1.0 if labels[i] == labels[j] else (alpha - 1) / alpha


def mean_over_pairs(labels, alpha, value):
    count = len(labels)
    pairs = [(i, j) for i in range(count) for j in range(count)]
    return sum(weight(i, j, labels, alpha) * value(i, j) for i, j in pairs) / count**2


def local_oracle(clean, adversarial, norm):
    return np.mean([size(z - moved, norm) for z, moved in zip(clean, adversarial, strict=True)])


def global_oracle(labels, clean, adversarial, alpha, norm):
    return mean_over_pairs(labels, alpha, lambda i, j: size(clean[i] - adversarial[j], norm))


def kl(target, logits):
    p, log_p = special.softmax(target.astype("float64")), special.log_softmax(target.astype("float64"))
    return (p * (log_p - special.log_softmax(logits.astype("float64")))).sum()


def entropy_oracle(logits):
    return special.entr(special.softmax(logits.astype("float64"), axis=1)).sum(axis=1)


def gradients(function, *arrays):
    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return tape.gradient(value, tensors)


def slope(oracle, arrays, which):
    """Finite differences of an oracle with respect to one of its arguments."""
    arrays = [array.astype("float64") for array in arrays]
    found = np.empty_like(arrays[which])
    for index in np.ndindex(found.shape):
        ends = []
        for sign in (1, -1):
            moved = [array.copy() for array in arrays]
            moved[which][index] += sign * STEP
            ends.append(oracle(*moved))
        found[index] = (ends[0] - ends[1]) / (2 * STEP)
    return found


# Compactness


@every_norm
@every_shape
def test_local_compactness_is_the_norm_of_each_difference(norm, shape):
    clean, adversarial = latents(shape), latents(shape, 1)
    values = losses.local_compactness(clean, adversarial, norm)
    assert values.shape == (6,) and values.dtype == "float32"
    expected = [size(z - moved, norm) for z, moved in zip(clean, adversarial, strict=True)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    loss = losses.LocalCompactness(norm)
    np.testing.assert_allclose(loss(clean, adversarial), local_oracle(clean, adversarial, norm), rtol=1e-5)


@every_norm
@every_shape
@every_alpha
def test_global_compactness_is_the_weighted_mean_over_all_pairs(norm, shape, alpha):
    clean, adversarial = latents(shape), latents(shape, 1)
    loss = losses.GlobalCompactness(alpha, norm)
    both = loss(LABELS, (clean, adversarial))
    np.testing.assert_allclose(
        both, global_oracle(LABELS, clean, adversarial, alpha, norm), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        loss(LABELS, clean), global_oracle(LABELS, clean, clean, alpha, norm), rtol=1e-5, atol=1e-6
    )


def test_global_compactness_has_a_value_for_each_adversarial_latent():
    clean, adversarial = latents((6, 4)), latents((6, 4), 1)
    values = losses.global_compactness(LABELS, clean, adversarial, alpha=0.6)
    for j, value in enumerate(values):
        expected = np.mean(
            [weight(i, j, LABELS, 0.6) * size(clean[i] - adversarial[j], 1) for i in range(len(LABELS))]
        )
        assert float(value) == pytest.approx(expected, rel=1e-5)


@every_norm
def test_distances_of_two_batches_of_different_size(norm):
    one, other = latents((4, 2, 3)), latents((5, 2, 3), 1)
    expected = [[size(row - column, norm) for column in other] for row in one]
    np.testing.assert_allclose(pairwise_distance(one, other, norm), expected, rtol=1e-5)


@every_norm
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_gradients_of_compactness_equal_finite_differences(norm, stop_gradient):
    arrays = latents((6, 2, 3)), latents((6, 2, 3), 1)
    local = losses.LocalCompactness(norm, stop_gradient)
    overall = losses.GlobalCompactness(0.7, norm, stop_gradient)
    terms = {
        "local": (local, lambda clean, moved: local_oracle(clean, moved, norm)),
        "global": (
            lambda clean, moved: overall(LABELS, (clean, moved)),
            lambda clean, moved: global_oracle(LABELS, clean, moved, 0.7, norm),
        ),
    }
    for name, (term, oracle) in terms.items():
        of_clean, of_adversarial = gradients(term, *arrays)
        np.testing.assert_allclose(of_adversarial, slope(oracle, arrays, 1), atol=1e-5, err_msg=name)
        if stop_gradient:
            assert of_clean is None or not of_clean.numpy().any(), name
        else:
            np.testing.assert_allclose(of_clean, slope(oracle, arrays, 0), atol=1e-5, err_msg=name)


@every_norm
def test_both_sides_of_clean_pairs_move(norm):
    clean = latents((6, 5))
    (gradient,) = gradients(lambda z: losses.GlobalCompactness(0.7, norm)(LABELS, z), clean)
    expected = slope(lambda z: global_oracle(LABELS, z, z, 0.7, norm), [clean], 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@every_norm
@pytest.mark.parametrize("compiled", [False, True])
def test_equal_latents_have_distance_and_gradient_0(norm, compiled):
    clean = latents((6, 2, 3))
    same = np.tile(clean[:1], (6, 1, 1))

    def both(z, moved):
        local = losses.LocalCompactness(norm, stop_gradient=False)(z, moved)
        return local + losses.GlobalCompactness(norm=norm, stop_gradient=False)(LABELS, (z, moved))

    function = tf.function(both) if compiled else both
    assert float(function(tf.constant(same), tf.constant(same))) == 0
    for gradient in gradients(function, same, same):
        np.testing.assert_array_equal(gradient, np.zeros_like(same))


@every_norm
def test_a_batch_of_one_class_is_drawn_together(norm):
    clean, adversarial = latents((6, 4)), latents((6, 4), 1)
    one = np.zeros(6, "int32")
    loss = losses.GlobalCompactness(norm=norm)
    value, (_, gradient) = (
        loss(one, (clean, adversarial)),
        gradients(lambda *pair: loss(one, pair), clean, adversarial),
    )
    np.testing.assert_allclose(value, global_oracle(one, clean, adversarial, 0.99, norm), rtol=1e-5)
    assert float(value) > 0 and np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_a_single_example_is_a_batch():
    loss = losses.GlobalCompactness()
    assert float(loss(np.array([1]), latents((1, 3)))) == 0
    assert np.isfinite(loss(np.array([1]), (latents((1, 3)), latents((1, 3), 1))))


@every_norm
def test_compactness_of_bfloat16_latents_is_computed_in_float32(norm):
    clean, adversarial = (tf.cast(latents((6, 300), seed), "bfloat16") for seed in (0, 1))
    exact = [np.asarray(tf.cast(array, "float64")) for array in (clean, adversarial)]
    local = losses.local_compactness(clean, adversarial, norm)
    overall = losses.global_compactness(LABELS, clean, adversarial, norm=norm)
    assert local.dtype == overall.dtype == "float32"
    np.testing.assert_allclose(tf.reduce_mean(local), local_oracle(*exact, norm), rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_mean(overall), global_oracle(LABELS, *exact, 0.99, norm), rtol=1e-5)


@every_norm
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_batch_size_may_be_unknown(norm, jit_compile):
    clean, adversarial = latents((6, 2, 3)), latents((6, 2, 3), 1)
    loss = losses.GlobalCompactness(0.7, norm, stop_gradient=False)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(labels, clean, adversarial):
        with tf.GradientTape() as tape:
            tape.watch(adversarial)
            value = loss(labels, (clean, adversarial))
        return value, tape.gradient(value, adversarial)

    free = [tf.TensorSpec((None,), tf.int32), *[tf.TensorSpec((None, 2, 3))] * 2]
    value, gradient = step.get_concrete_function(*free)(*map(tf.constant, (LABELS, clean, adversarial)))
    oracle = lambda z, moved: global_oracle(LABELS, z, moved, 0.7, norm)  # noqa: E731
    np.testing.assert_allclose(value, oracle(clean, adversarial), rtol=1e-5)
    np.testing.assert_allclose(gradient, slope(oracle, (clean, adversarial), 1), atol=1e-5)


def test_labels_may_be_a_column():
    loss, clean = losses.GlobalCompactness(), latents((6, 4))
    np.testing.assert_array_equal(loss(LABELS[:, None], clean), loss(LABELS, clean))


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (losses.LocalCompactness, {"norm": 3}, 'The norm of a latent is 1, 2 or "inf". Received: norm=3'),
        (losses.GlobalCompactness, {"norm": "l2"}, "norm='l2'"),
        (losses.GlobalCompactness, {"alpha": 0.0}, r"alpha must be in \(0, 1\]. Received: alpha=0.0"),
        (losses.GlobalCompactness, {"alpha": 1.5}, "alpha=1.5"),
        (losses.GlobalCompactness, {"alpha": "1"}, "alpha='1'"),
    ],
)
def test_wrong_options_are_told(cls, options, words):
    with pytest.raises(InputError, match=words):
        cls(**options)


# Entropy and smoothness


def test_entropy_equals_the_formula():
    np.testing.assert_allclose(losses.entropy(LOGITS), entropy_oracle(LOGITS), rtol=1e-5, atol=1e-6)
    assert float(losses.entropy(1e4 * LOGITS[:1])[0]) == 0
    assert losses.entropy(tf.cast(LOGITS, "bfloat16")).dtype == "float32"


def test_gradient_of_entropy_equals_finite_differences():
    (gradient,) = gradients(lambda z: losses.ConditionalEntropy()(LABELS, z), LOGITS)
    expected = slope(lambda z: entropy_oracle(z).mean(), [LOGITS], 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_smoothness_is_the_divergence_from_the_clean_prediction(stop_gradient):
    def oracle(target, logits):
        return np.mean([kl(*pair) for pair in zip(target, logits, strict=True)])

    loss = losses.Smoothness(stop_gradient)
    np.testing.assert_allclose(loss(LOGITS, OTHER), oracle(LOGITS, OTHER), rtol=1e-5)
    of_clean, of_adversarial = gradients(loss, LOGITS, OTHER)
    np.testing.assert_allclose(of_adversarial, slope(oracle, (LOGITS, OTHER), 1), atol=1e-5)
    if stop_gradient:
        assert of_clean is None
    else:
        np.testing.assert_allclose(of_clean, slope(oracle, (LOGITS, OTHER), 0), atol=1e-5)


@every_alpha
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_global_smoothness_is_the_weighted_mean_over_all_pairs(alpha, stop_gradient):
    def oracle(target, logits):
        return mean_over_pairs(LABELS, alpha, lambda i, j: kl(target[i], logits[j]))

    def mean(target, logits):
        return tf.reduce_mean(losses.global_smoothness(LABELS, target, logits, alpha, stop_gradient))

    np.testing.assert_allclose(mean(LOGITS, OTHER), oracle(LOGITS, OTHER), rtol=1e-5)
    of_clean, of_adversarial = gradients(mean, LOGITS, OTHER)
    np.testing.assert_allclose(of_adversarial, slope(oracle, (LOGITS, OTHER), 1), atol=1e-5)
    if stop_gradient:
        assert of_clean is None
    else:
        np.testing.assert_allclose(of_clean, slope(oracle, (LOGITS, OTHER), 0), atol=1e-5)


# As objects


@pytest.mark.parametrize(
    "loss",
    [
        losses.LocalCompactness("inf", stop_gradient=False),
        losses.GlobalCompactness(0.8, 2, stop_gradient=False),
        losses.Smoothness(stop_gradient=False),
    ],
)
def test_options_survive_saving(loss):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    y_true = LABELS if isinstance(loss, losses.GlobalCompactness) else OTHER
    np.testing.assert_array_equal(again(y_true, LOGITS), loss(y_true, LOGITS))
