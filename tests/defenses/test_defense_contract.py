"""What holds for every registered defense, as for any Keras model."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from defense_building import ADVERSARY, CLASSES, EVERY_IF_WHOLE, batch, build, classifier

from keras_robust.attacks import APGD, BIM, PGD, APGDTargeted, MultiTargeted
from keras_robust.defenses import AdversarialTraining, Standard, defenses
from keras_robust.errors import InputError

EVERY = pytest.mark.parametrize("name", list(defenses))
IF_WHOLE = pytest.mark.parametrize("name", EVERY_IF_WHOLE)


def sgd(**options):
    return keras.optimizers.SGD(0.1, **options)


def fitted(name, data=None, *, optimizer=None, fit=None, **options):
    """A defense after an epoch of batches of 4, run eagerly."""
    defense = build(name, **options)
    defense.compile(optimizer or sgd(), run_eagerly=True)
    images, labels = data or batch()
    defense.fit(images, labels, batch_size=4, shuffle=False, verbose=0, **(fit or {}))
    return defense


def assert_same_weights(one, other, tolerance=0.0):
    for left, right in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def differ(one, other):
    return any((a != b).any() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def is_part(model, whole):
    return {id(variable) for variable in model.variables} <= {id(variable) for variable in whole.variables}


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches, self.epochs, self.weights = 0, [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.weights.append(self.model.classifier.get_weights())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs)


@EVERY
def test_fit_evaluate_and_predict_like_a_keras_model(name):
    images, labels = batch(10)
    defense = build(name)
    traces = []
    step = defense.train_step
    defense.train_step = lambda data: (traces.append(1), step(data))[1]
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")  # a name would be made in the step
    weighted = keras.metrics.SparseTopKCategoricalAccuracy(2)
    defense.compile("adam", metrics=[accuracy], weighted_metrics=[weighted])
    before = defense.classifier.get_weights()
    recorder = Recorder()
    data = {"validation_data": (images, labels), "callbacks": [recorder]}
    history = defense.fit(images, labels, batch_size=4, epochs=2, verbose=0, **data).history

    assert len(traces) == 1, "train_function is traced once, for full and for partial batches"
    assert recorder.batches == int(defense.step) == 6
    assert len(recorder.epochs) == 2
    expected = {"loss", "accuracy", "sparse_top_k_categorical_accuracy", *defense.active_terms}
    assert expected <= set(history)
    assert {f"val_{key}" for key in {*expected, "adversarial_accuracy"}} <= set(history)
    assert np.isfinite(list(history.values())).all()
    total = sum(defense.terms[term] * np.array(history[term]) for term in defense.active_terms)
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    assert any((a != b).any() for a, b in zip(before, defense.classifier.get_weights(), strict=True))

    logs = defense.evaluate(images, labels, batch_size=5, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx((defense.predict(images, verbose=0).argmax(1) == labels).mean())
    np.testing.assert_allclose(
        defense.predict(images, verbose=0), defense.classifier.predict(images, verbose=0), rtol=1e-5
    )


@IF_WHOLE
def test_validation_reports_what_attack_and_classifier_give_by_hand(name):
    images, labels = batch(20)
    attack = BIM(eps=0.3, steps=3)
    defense = build(name, adversary=attack)
    defense.compile(keras.optimizers.SGD(0.01), metrics=["accuracy"], run_eagerly=True)
    data = {"validation_data": (images, labels), "batch_size": 8, "shuffle": False, "verbose": 0}
    history = defense.fit(images, labels, **data).history

    def accuracy(images):
        return (defense.classifier.predict(images, verbose=0).argmax(1) == labels).mean()

    clean, robust = accuracy(images), accuracy(attack(defense.classifier, images, labels))
    assert clean > robust, "or the test could not tell them apart"
    assert history["val_accuracy"] == pytest.approx([clean])
    assert history["val_adversarial_accuracy"] == pytest.approx([robust])


@IF_WHOLE
def test_several_steps_of_one_graph_are_the_same_steps(name):
    images, labels = batch(16)
    runs = []
    for options in ({"run_eagerly": True}, {"steps_per_execution": 2}):
        runs.append(build(name, dropout=0.5))
        runs[-1].compile(sgd(), **options)
        runs[-1].fit(images, labels, batch_size=4, shuffle=False, verbose=0)
    assert int(runs[1].step) == 4
    assert_same_weights(*runs, tolerance=1e-6)


@IF_WHOLE
def test_class_weights_are_the_sample_weights_of_their_examples(name):
    _, labels = batch()
    weights = {0: 0.5, 1: 2.0, 2: 1.0}
    sample_weight = np.array([weights[label] for label in labels], "float32")
    by_class = fitted(name, fit={"class_weight": weights})
    by_sample = fitted(name, fit={"sample_weight": sample_weight})
    assert_same_weights(by_class, by_sample, tolerance=1e-6)
    assert differ(by_class, fitted(name))


@EVERY
def test_weight_decay_pulls_every_kernel_towards_zero(name):
    rate = 1e-3  # small, so that the pulls of several moves add up
    runs = [
        fitted(name, batch(4), optimizer=keras.optimizers.SGD(rate), weight_decay=decay) for decay in (0, 0.3)
    ]
    players = [player for player, model in runs[0].players().items() if is_part(model, runs[0].classifier)]
    for player in players:
        optimizer = runs[0].optimizer_of(player)
        reach = 0.3 * float(optimizer.learning_rate) * int(optimizer.iterations)
        trained = (defense.players()[player].trainable_variables for defense in [build(name), *runs])
        for initial, without, with_decay in zip(*trained, strict=True):
            pull = reach * initial if initial.ndim > 1 else 0.0
            np.testing.assert_allclose(with_decay, without - pull, rtol=0, atol=1e-6)
    assert players, "the classifier, or its parts, are what learns"


@IF_WHOLE
def test_the_seed_makes_a_run_repeat(name):
    runs = [fitted(name, dropout=0.5, seed=seed) for seed in (5, 5, 6)]
    assert_same_weights(*runs[:2])
    assert differ(runs[0], runs[2])


@EVERY
def test_bfloat16_layers_train(name):
    defense = build(name, dtype="mixed_bfloat16")
    defense.compile(sgd(), run_eagerly=True)
    history = defense.fit(*batch(), batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert {variable.dtype for variable in defense.trainable_variables} == {"float32"}


@IF_WHOLE
def test_float16_layers_train_with_a_scaled_loss(name):
    half, full = (build(name, dtype=dtype) for dtype in ("mixed_float16", "float32"))
    for defense in (half, full):
        defense.compile(sgd(), run_eagerly=True)
        defense.fit(*batch(), batch_size=4, shuffle=False, verbose=0)
    assert isinstance(half.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(full.optimizer, keras.optimizers.LossScaleOptimizer)
    assert {variable.dtype for variable in half.trainable_variables} == {"float32"}
    assert_same_weights(half.classifier, full.classifier, tolerance=1e-2)
    assert differ(half.classifier, build(name).classifier)


@pytest.mark.slow
@EVERY
@pytest.mark.filterwarnings("ignore")
def test_xla_takes_the_same_step(name):
    runs = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        defense = build(name)
        defense.compile(sgd(), **options)
        logs = defense.fit(*batch(), batch_size=4, shuffle=False, verbose=0).history
        assert defense.jit_compile is options.get("jit_compile", False)
        runs.append((defense, logs))
    (plain, plain_logs), (compiled, compiled_logs) = runs
    assert_same_weights(plain, compiled, tolerance=1e-4)
    for key, value in plain_logs.items():
        assert compiled_logs[key] == pytest.approx(value, abs=1e-4)


@EVERY
def test_averages_are_swapped_in_and_back_and_end_the_fit(name):
    recorder = Recorder()
    defense = build(name)
    defense.compile(sgd(use_ema=True, ema_momentum=0.5), run_eagerly=True)
    start = defense.classifier.get_weights()
    with defense.averaged():
        assert_equal(defense.classifier.get_weights(), start, "there is no average before the first step")
    seen = {}

    def compare(epoch, logs):
        seen["within"] = defense.classifier.get_weights()
        with defense.averaged():
            seen["averaged"] = defense.classifier.get_weights()
        seen["after"] = defense.classifier.get_weights()

    callbacks = [recorder, keras.callbacks.LambdaCallback(on_epoch_end=compare)]
    defense.fit(*batch(12), batch_size=4, verbose=0, callbacks=callbacks)
    average = recorder.weights[0]
    for weights in recorder.weights[1:]:
        average = [0.5 * a + 0.5 * w for a, w in zip(average, weights, strict=True)]
    if int(defense.optimizer.iterations) == len(recorder.weights):  # else it steps within a batch too
        assert_equal(seen["averaged"], average, "the average is that of the weights after each step")
    assert_equal(seen["within"], seen["after"], "the weights come back")
    assert_equal(defense.classifier.get_weights(), seen["averaged"], "fit ends with the averages")


def assert_equal(one, other, message):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6, err_msg=message)


@EVERY
def test_config_round_trip(name):
    defense = build(name, weight_decay=0.1, seed=3)
    copy = type(defense).from_config(defense.get_config())
    assert copy.get_config() == defense.get_config()
    assert copy.adversary == ADVERSARY
    assert copy.terms == defense.terms


@EVERY
def test_errors_say_what_is_wrong(name):
    cls = defenses[name]
    with pytest.raises(InputError, match="must be a built"):
        cls(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)]), ADVERSARY)
    with pytest.raises(InputError, match="must be a built"):
        cls(lambda images: images, ADVERSARY)
    with pytest.raises(InputError, match=r"weight_decay.* >= 0. Received: -1"):
        cls(classifier(), ADVERSARY, weight_decay=-1)
    with pytest.raises(InputError, match=r"weight_decay.*Received: nan"):
        cls(classifier(), ADVERSARY, weight_decay=float("nan"))
    with pytest.raises(InputError, match=r"seed must be an integer. Received: 0.5"):
        cls(classifier(), ADVERSARY, seed=0.5)
    with pytest.raises(InputError, match=f"{cls.__name__} needs an adversary .*'pgd'"):
        cls(classifier(), "pgd")
    for compiling in (lambda: build(name).compile("sgd", "mse"), lambda: build(name).compile(loss="mse")):
        with pytest.raises(InputError, match="brings its own loss"):
            compiling()
    with pytest.raises(InputError, match="Unknown further player: 'nobody'"):
        build(name).compile("sgd", optimizers={"nobody": "sgd"})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: ((255 * x).astype("uint8"), y), r"Images must be floating point.*Received: .*uint8"),
        (lambda x, y: (x, np.eye(CLASSES)[y]), r"Labels must be integers \(B,\).*shape=\(None, 3\).*float"),
        (lambda x, y: (x, y.astype("float32")), r"Labels must be integers \(B,\).*shape=\(None,\).*float32"),
        (lambda x, y: (x, None), r"Labels must be integers .*Received: None"),
    ],
)
def test_a_batch_of_the_wrong_kind_is_refused(change, message):
    defense = build("standard")
    defense.compile(sgd())
    images, labels = change(*batch())
    given = tf.data.Dataset.from_tensor_slices(images if labels is None else (images, labels)).batch(4)
    for run in (defense.fit, defense.evaluate):
        with pytest.raises(InputError, match=message):
            run(given, verbose=0)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (255 * x, y), r"^Images must be in \[0, 1\], received values from .* to 2[0-9.]+\.$"),
        (lambda x, y: (x - 0.5, y), r"^Images must be in \[0, 1\], received values from -0"),
        (lambda x, y: (np.where(x > 0.5, np.nan, x), y), r"^Images must be in \[0, 1\], received"),
        (lambda x, y: (x, y + 1), "^Labels must be integers 0 to 2, received values from [123] to 3.$"),
        (lambda x, y: (x, y - 1), "^Labels must be integers 0 to 2, received values from -1 to"),
    ],
)
def test_values_in_a_dataset_are_looked_at_as_they_are_drawn(change, message):
    defense = build("standard")
    defense.compile(sgd())
    good, bad = (
        tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(4)
        for images, labels in (batch(), change(*batch()))
    )
    weighted = bad.map(lambda images, labels: (images, labels, tf.ones_like(labels, "float32")))
    for run in (
        lambda: defense.fit(bad, verbose=0),
        lambda: defense.fit(weighted, verbose=0),
        lambda: defense.fit(good, validation_data=bad, verbose=0),
        lambda: defense.evaluate(bad, verbose=0),
    ):
        with pytest.raises(InputError, match=message):
            run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 2}, "restarts does nothing in training; leave it at 1. Received: restarts=2"),
        ({"check_every": 5}, "check_every does nothing in training; leave it at None"),
        ({"search_dtype": "bfloat16"}, "search_dtype does nothing in training; leave it at 'float32'"),
    ],
)
def test_options_that_a_step_would_not_heed_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        AdversarialTraining(classifier(), PGD(eps=0.1, **options))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (255 * x, y), r"Images must be in \[0, 1\].*Divide by 255"),
        (lambda x, y: ((255 * x).astype("uint8"), y), "received uint8"),
        (lambda x, y: (np.full_like(x, np.nan), y), "NaN"),
        (lambda x, y: (x[:, :3], y), "wrong shape"),
        (lambda x, y: (x, y - 1), "received values from -1"),
        (lambda x, y: (x, y + CLASSES), "Labels must be integers 0 to 2"),
        (lambda x, y: (x, np.eye(CLASSES)[y]), "argmax"),
        (lambda x, y: (x[:-1], y), "8 labels for 7 images"),
    ],
)
def test_bad_arrays_are_told(change, message):
    defense = build("standard")
    defense.compile(sgd())
    images, labels = change(*batch())
    for run in (defense.fit, defense.evaluate):
        with pytest.raises(InputError, match=message):
            run(images, labels, verbose=0)


@pytest.mark.parametrize(("activation", "after"), [("softmax", []), (None, [keras.layers.Softmax()])])
def test_a_classifier_that_outputs_probabilities_is_refused(activation, after):
    last = keras.layers.Dense(CLASSES, activation=activation)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), last, *after])
    with pytest.raises(InputError, match="outputs probabilities where logits are expected"):
        Standard(model)


@pytest.mark.parametrize(
    "adversary", [PGD(eps=0.1, targeted=True), MultiTargeted(eps=0.1), APGDTargeted(eps=0.1, steps=2)]
)
def test_an_adversary_with_targets_is_refused(adversary):
    with pytest.raises(InputError, match="In training there are no targets"):
        build("adversarial_training", adversary=adversary)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_every_integer_type_of_labels_will_do(dtype):
    images, labels = batch()
    defense = build("adversarial_training", adversary=APGD(eps=0.1, steps=2))
    defense.compile("sgd", run_eagerly=True)
    defense.fit(images, labels.astype(dtype), verbose=0)


@pytest.mark.parametrize("name", [name for name in defenses if defenses[name].needs_adversary])
def test_a_missing_adversary_is_told(name):
    with pytest.raises(InputError, match=r"needs an adversary .*Received: adversary=None"):
        build(name, adversary=None)


@pytest.mark.parametrize("weights", [(-1, 1), (0, 0), (float("inf"), 1), ("1", 1)])
def test_term_weights_are_checked(weights):
    clean, adversarial = weights
    with pytest.raises(InputError, match="must be"):
        build("adversarial_training", clean_weight=clean, adversarial_weight=adversarial)


def test_integer_weights_are_fine():
    defense = build("adversarial_training", clean_weight=0, adversarial_weight=np.float32(2))
    defense.compile(sgd(), metrics=["accuracy"], run_eagerly=True)
    logs = defense.fit(*batch(), verbose=0).history
    assert "clean" not in logs
    assert logs["accuracy"] == logs["adversarial_accuracy"], "with no clean loss it sees adversarial images"


def test_without_an_adversary_nothing_is_reported_about_it():
    defense = Standard(classifier())
    defense.compile(sgd(), run_eagerly=True)
    logs = defense.fit(*batch(), validation_data=batch(), verbose=0).history
    assert not any("adversarial" in key for key in logs)


def test_input_gradient_is_that_of_the_sum():
    images, _ = batch()
    defense = build("standard")
    gradient = defense.input_gradient(lambda x: keras.ops.sum(x**3, axis=(1, 2, 3)), tf.constant(images))
    np.testing.assert_allclose(gradient, 3 * images**2, rtol=1e-5)


PUBLISHED = {
    "adr": {"norm": 1, "alpha": 0.99, "stop_gradient": True, "pairs": "clean_adversarial"},
    "atld": {"matching_weight": 0.5, "smoothing": 0.5, "on": "logits", "clean_mode": "training"},
    "bilateral": {"label_mass": 0.5, "gamma": 0.01},
    "er_classifier": {"regularization_weight": 0.1, "clip": 0.01, "critic_steps": 1},
    "feature_scattering": {"smoothing": 0.5},
    "lat": {"latent_eps": 0.1, "latent_steps": 7},
    "mat": {"alpha": 1.0, "beta": 1.0},
    "rse": {"first": 0.2, "inner": 0.1, "passes": 10},
    "tla": {"triplet_weight": 2.0, "norm_weight": 0.001, "margin": 0.03},
    "trades": {"beta": 6.0},
    "vae_cla": {"divergence_weight": 0.001},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_options_are_by_default_what_was_published(name):
    parameters = inspect.signature(defenses[name].__init__).parameters
    assert {option: parameters[option].default for option in PUBLISHED[name]} == PUBLISHED[name]
