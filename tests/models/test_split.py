"""split: exact, on the same layers, wherever the cut is."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_robust import models
from keras_robust.errors import InputError
from keras_robust.models import JointClassifier, LatentClassifier, split

rng = np.random.default_rng(0)
IMAGES = rng.uniform(size=(3, 8, 8, 3)).astype("float32")


def sequential(activation=None):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dense(6, activation="relu", name="hidden"),
            layers.Dense(5, activation=activation, name="logits"),
        ],
        name="net",
    )


def skipping():
    images = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(images)
    branch = layers.Conv2D(4, 3, padding="same", name="branch")(layers.Dropout(0.5)(stem))
    joined = layers.Flatten(name="flat")(keras.ops.relu(branch) + stem)
    return keras.Model(images, layers.Dense(5, name="logits")(joined), name="skipping")


def reusing():
    """One Dense before and after the cut."""
    images = keras.Input((8, 8, 3))
    shared = layers.Dense(3, name="shared")
    hidden = layers.Activation("tanh", name="hidden")(shared(images))
    return keras.Model(images, layers.Flatten()(shared(hidden)))


def transfer():
    """A nested base that is called with an argument of its own."""
    base = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
        ],
        name="base",
    )
    images = keras.Input((8, 8, 3))
    features = layers.GlobalAveragePooling2D(name="pool")(base(images, training=False))
    return keras.Model(images, layers.Dense(5, name="logits")(features))


def equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def identities(model):
    return {id(variable) for variable in model.variables}


@pytest.mark.parametrize("index", range(-5, 5))
def test_sequential_is_cut_exactly_at_every_layer(index):
    model = sequential()
    classifier = split(model, at=index)
    latent, logits = classifier.latent_and_logits(IMAGES)
    expected = IMAGES
    for layer in model.layers[: index % 5 + 1]:
        expected = layer(expected)
    equal(latent, expected)
    equal(logits, model(IMAGES))
    equal(classifier(IMAGES), model(IMAGES))
    equal(classifier.head(latent), logits)
    assert type(classifier) is LatentClassifier
    assert identities(classifier) == identities(model)


def test_name_index_and_layer_mean_the_same():
    model = sequential()
    latents = [split(model, at=at).encoder(IMAGES) for at in ("hidden", 3, -2, model.get_layer("hidden"))]
    for latent in latents:
        equal(latent, latents[0])


def test_training_the_classifier_trains_the_model():
    model = sequential()
    classifier = split(model, at="hidden")
    classifier.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model(IMAGES).numpy()
    classifier.fit(IMAGES, np.array([0, 1, 2]), verbose=0)
    assert not np.allclose(model(IMAGES), before)
    equal(classifier(IMAGES), model(IMAGES))


def test_model_that_is_compiled_and_reused_elsewhere_splits():
    model = sequential()
    model.compile("adam", "mse")
    split(model, at="conv")
    images = keras.Input((8, 8, 3))
    outer = keras.Model(images, layers.Softmax()(model(images)))
    equal(split(model, at="flat")(IMAGES), model(IMAGES))
    equal(split(outer, at="flat", strip_softmax=True)(IMAGES), model(IMAGES))


@pytest.mark.parametrize("make, at", [(skipping, "branch"), (reusing, "hidden")])
def test_what_crosses_the_cut_leaves_no_head(make, at, tmp_path):
    model = make()
    classifier = split(model, at=at)
    assert isinstance(classifier, JointClassifier)
    assert classifier.head is None
    latent, logits = classifier.latent_and_logits(IMAGES)
    equal(latent, keras.Model(model.inputs[0], model.get_layer(at).output)(IMAGES))
    equal(logits, model(IMAGES))
    equal(classifier(IMAGES), model(IMAGES))
    equal(classifier.encoder(IMAGES), latent)
    assert identities(classifier) == identities(model)

    classifier.save(tmp_path / "model.keras")
    classifier.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fresh = split(make(), at=at)
    fresh.load_weights(tmp_path / "model.weights.h5")
    for other in (loaded, fresh):
        assert type(other) is JointClassifier
        for ours, theirs in zip((latent, logits), other.latent_and_logits(IMAGES), strict=True):
            equal(theirs, ours)
        equal(other.encoder(IMAGES), latent)

    classifier.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    equal(served.serve(IMAGES), logits)


def test_joint_latent_and_logits_are_one_pass():
    model = skipping()
    classifier = split(model, at="branch")
    latent, logits = classifier.latent_and_logits(IMAGES, training=True)
    again, _ = classifier.latent_and_logits(IMAGES, training=True)
    assert not np.allclose(latent, again)  # dropout differs between passes
    stem = model.get_layer("stem")(IMAGES)
    joined = model.get_layer("flat")(keras.ops.relu(latent) + stem)
    equal(model.get_layer("logits")(joined), logits)


@pytest.fixture(scope="module")
def mobile_net():
    return keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=7, alpha=0.35)


@pytest.mark.parametrize("at", ["out_relu", "block_2_add", "block_2_expand"])
def test_keras_applications_model(mobile_net, at):
    model = mobile_net
    images = rng.uniform(size=(2, 32, 32, 3)).astype("float32")
    classifier = split(model, at=at, strip_softmax=True)
    latent, logits = classifier.latent_and_logits(images)
    equal(latent, keras.Model(model.inputs[0], model.get_layer(at).output)(images))
    equal(keras.ops.softmax(logits), model(images))
    assert (classifier.head is None) == (at == "block_2_expand")  # inside a residual block
    assert identities(classifier) == identities(model)


def dense_softmax():
    return sequential("softmax")


def dense_softmax_without_bias():
    model = sequential()
    return keras.Sequential([model, layers.Dense(4, use_bias=False, activation="softmax")])


def softmax_layer():
    return keras.Sequential([keras.Input((8, 8, 3)), *sequential().layers, layers.Softmax()])


def softmax_activation():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *sequential().layers, layers.Activation("softmax", dtype="float32")]
    )


def softmax_taken_to_float32():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *sequential("softmax").layers,
            layers.Identity(),
            layers.Activation("linear", dtype="float32"),
        ]
    )


def softmax_operation():
    model = sequential()
    return keras.Model(model.inputs[0], keras.ops.softmax(model.outputs[0]))


def nested_softmax():
    images = keras.Input((8, 8, 3))
    top = keras.Sequential([layers.Dense(6), layers.Dense(4, activation="softmax")], name="top")
    return keras.Model(images, top(layers.Flatten(name="flat")(images)))


ENDS = [
    dense_softmax,
    dense_softmax_without_bias,
    softmax_layer,
    softmax_activation,
    softmax_taken_to_float32,
    softmax_operation,
    nested_softmax,
]


@pytest.mark.parametrize("make", ENDS)
def test_softmax_at_the_end_is_refused_or_left_out(make, tmp_path):
    model = make()
    with pytest.raises(InputError, match="strip_softmax=True"):
        split(model, at="flat")
    classifier = split(model, at="flat", strip_softmax=True)
    logits = classifier(IMAGES)
    equal(keras.ops.softmax(logits), model(IMAGES))
    assert not np.allclose(keras.ops.sum(logits, axis=1), 1)
    assert identities(classifier) == identities(model)
    classifier.save(tmp_path / "model.keras")
    equal(keras.saving.load_model(tmp_path / "model.keras")(IMAGES), logits)


def test_stripped_logits_are_those_under_the_softmax():
    model, linear = sequential("softmax"), sequential()
    linear.set_weights(model.get_weights())
    equal(split(model, at="hidden", strip_softmax=True)(IMAGES), linear(IMAGES))
    equal(split(linear, at="hidden", strip_softmax=True)(IMAGES), linear(IMAGES))


@pytest.mark.parametrize("end", [layers.Softmax, lambda **kept: layers.Activation("softmax", **kept)])
def test_logits_under_a_softmax_in_float32_are_in_float32(end):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        last = [layers.Dense(3, dtype="float32", name="last"), end(dtype="float32")]
        model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(name="flat"), *last])
        classifier = split(model, at="flat", strip_softmax=True)
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(keras.ops.softmax(classifier(IMAGES)), model(IMAGES), atol=1e-6)


def test_the_layer_that_loses_its_softmax_can_be_the_cut():
    model = sequential("softmax")
    classifier = split(model, at=model.layers[-1], strip_softmax=True)
    latent, logits = classifier.latent_and_logits(IMAGES)
    equal(latent, logits)
    equal(keras.ops.softmax(logits), model(IMAGES))


def test_softmax_inside_another_layer_is_refused():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 8, activation="softmax", name="last")])
    with pytest.raises(InputError, match="'last' \\(Conv2D\\) cannot be left out"):
        split(model, at=0, strip_softmax=True)


@pytest.mark.parametrize("training", [None, False, True])
def test_cut_inside_a_nested_model_keeps_how_it_is_called(training, tmp_path):
    model = transfer()
    norm = model.get_layer("base").get_layer("norm")
    norm.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    classifier = split(model, at="norm")
    latent, logits = classifier.latent_and_logits(IMAGES, training=training)
    equal(latent, norm(model.get_layer("base").get_layer("conv")(IMAGES), training=training))
    equal(logits, model(IMAGES, training=training))
    classifier.save(tmp_path / "model.keras")
    equal(keras.saving.load_model(tmp_path / "model.keras")(IMAGES, training=training), logits)


def test_cut_at_a_nested_model():
    model = transfer()
    latent, logits = split(model, at="base").latent_and_logits(IMAGES)
    equal(latent, model.get_layer("base")(IMAGES))
    equal(logits, model(IMAGES))


@pytest.mark.parametrize("at, part", [("conv", "encoder"), ("hidden", "head")])
def test_latent_classifier_can_be_cut_again(at, part):
    model = sequential()
    first = split(model, at="flat")
    assert any(layer.name == at for layer in getattr(first, part).layers)
    second = split(first, at=at)
    latent, logits = second.latent_and_logits(IMAGES)
    equal(latent, keras.Model(model.inputs[0], model.get_layer(at).output)(IMAGES))
    equal(logits, model(IMAGES))
    assert identities(second) == identities(model)
    assert split(second, at="encoder").encoder.output_shape == second.encoder.output_shape


def test_built_architecture_can_be_cut_again():
    classifier = models.build("wide_resnet", depth=10, width=1, input_shape=(8, 8, 3))
    latent, logits = split(classifier, at="latent").latent_and_logits(IMAGES)
    equal(latent, classifier.encoder(IMAGES))
    equal(logits, classifier(IMAGES))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def called_subclassed():
    model = Subclassed()
    model(IMAGES)
    return model


def two_inputs():
    a, b = keras.Input((3,)), keras.Input((3,))
    return keras.Model([a, b], layers.Add(name="sum")([a, b]))


def two_outputs():
    a = keras.Input((3,))
    return keras.Model(a, [layers.Dense(2, name="x")(a), layers.Dense(2)(a)])


@pytest.mark.parametrize(
    "make, at, words",
    [
        (sequential, "hiden", "Did you mean 'hidden'.*Valid: conv, flat, hidden, logits, norm"),
        (sequential, layers.Dense(1, name="stranger"), "Unknown layer: 'stranger'"),
        (sequential, 5, r"index 5 is outside \[-5, 4\].*which has conv, norm, flat, hidden, logits"),
        (sequential, -6, r"index -6 is outside \[-5, 4\]"),
        (sequential, True, "Unknown layer: True"),
        (skipping, 0, "Unknown layer"),  # the images
        (reusing, "shared", "used 2 times"),
        (lambda: keras.Sequential([layers.Dense(3)], name="raw"), 0, "'raw', which is not built"),
        (Subclassed, 0, "a subclassed model has no graph.*type Subclassed"),
        (called_subclassed, 0, "a subclassed model has no graph"),
        (lambda: layers.Dense(3), 0, "type Dense"),
        (two_inputs, "sum", "has 2 and 1"),
        (two_outputs, "x", "has 1 and 2"),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_valid(make, at, words):
    with pytest.raises(InputError, match=words):
        split(make(), at=at)
