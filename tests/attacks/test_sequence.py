"""Attacks made of others: AutoAttack's versions, and the adaptive attack."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from keras_robust.attacks import (
    APGD,
    FAB,
    PGD,
    Adaptive,
    APGDTargeted,
    Attack,
    AutoAttack,
    FABTargeted,
    RayS,
    Square,
)
from keras_robust.attacks.attempts import RepeatedAttack
from keras_robust.attacks.sequence import Sequence
from keras_robust.errors import InputError
from keras_robust.models.precision import bfloat16_copy
from keras_robust.zoo import load


@dataclass(frozen=True, kw_only=True)
class Inverts(Attack):
    """Inverts the images of one class, and remembers which it was shown."""

    label: int = 0
    seen: ClassVar[list[Any]] = []

    def _run(self, model, images, labels, targets, key):
        self.seen.append(labels)
        return np.where((labels == self.label)[:, None, None, None], 1 - images, images)


class Chain(Sequence):
    @property
    def stages(self):
        return {str(label): Inverts(eps=self.eps, label=label) for label in (0, 1)}


def test_a_stage_is_made_on_what_still_stands(digits_classifier, digits):
    images, labels = digits[0][:200], digits[1][:200]
    right = digits_classifier(images).numpy().argmax(-1) == labels
    images, labels = images[right], labels[right]
    fooled = digits_classifier(1 - images).numpy().argmax(-1) != labels
    Inverts.seen.clear()
    adversarial = Chain(eps=1.0)(digits_classifier, images, labels, batch_size=500)
    first, second = Inverts.seen
    np.testing.assert_array_equal(first, labels)
    np.testing.assert_array_equal(second, labels[~(fooled & (labels == 0))])
    assert len(second) < len(first)
    inverted = np.abs(adversarial - (1 - images)).max(axis=(1, 2, 3)) == 0
    np.testing.assert_array_equal(inverted, np.isin(labels, (0, 1)) & (fooled | (labels == 1)))


@keras.saving.register_keras_serializable("keras_robust_tests")
class Jitter(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.draws = keras.random.SeedGenerator(3)

    def call(self, images):
        return images + 0.5 * keras.random.normal(keras.ops.shape(images), seed=self.draws)


@pytest.mark.parametrize(
    "attack", [Chain(eps=1.0), RayS(queries=30)], ids=lambda attack: type(attack).__name__
)
def test_what_is_shown_between_the_stages_repeats_on_a_classifier_that_draws_noise(
    digits_classifier, digits, attack
):
    inputs = keras.Input((8, 8, 1))
    jittery = keras.Model(inputs, digits_classifier(Jitter()(inputs)))
    (state,) = (kept for kept in jittery.variables if kept.name == "seed_generator_state")
    before = np.copy(state)
    first, again = (attack(jittery, digits[0][:60], digits[1][:60]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(state, before)


def test_the_standard_version_has_its_authors_settings():
    common = {"eps": 0.1, "norm": "l2"}
    assert AutoAttack(**common).stages == {
        "apgd-ce": APGD(loss="cross_entropy", steps=100, restarts=1, **common),
        "apgd-t": APGDTargeted(loss="dlr", steps=100, classes=9, restarts=1, **common),
        "fab-t": FABTargeted(steps=100, classes=9, restarts=1, **common),
        "square": Square(queries=5000, p_init=0.8, rescale=False, **common),
    }


def test_the_other_versions():
    plus, rand, fast = (AutoAttack(eps=0.1, version=name).stages for name in ("plus", "rand", "fast"))
    ball, half = {"eps": 0.1}, {"eps": 0.1, "search_dtype": "bfloat16"}
    assert plus == {
        "apgd-ce": APGD(loss="cross_entropy", steps=100, restarts=5, **ball),
        "apgd-dlr": APGD(loss="dlr", steps=100, restarts=5, **ball),
        "fab": FAB(steps=100, restarts=5, **ball),
        "square": Square(queries=5000, p_init=0.8, rescale=False, **ball),
        "apgd-t": APGDTargeted(loss="dlr", steps=100, classes=9, restarts=1, **ball),
        "fab-t": FABTargeted(steps=100, classes=9, restarts=1, **ball),
    }
    assert list(plus) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"], "in this order"
    assert rand == {
        "apgd-ce": APGD(loss="cross_entropy", steps=100, restarts=1, samples=20, **ball),
        "apgd-dlr": APGD(loss="dlr", steps=100, restarts=1, samples=20, **ball),
    }
    assert fast == {
        "apgd-ce": APGD(loss="cross_entropy", steps=100, restarts=1, **half),
        "apgd-t": APGDTargeted(loss="dlr", steps=100, classes=9, restarts=1, **half),
        "square": Square(queries=5000, p_init=0.8, rescale=False, **ball),
    }
    with pytest.raises(InputError, match="Unknown version of AutoAttack"):
        AutoAttack(eps=0.1, version="standart")


def test_options_reach_every_stage():
    stages = AutoAttack(eps=0.1, bounds=(-1.0, 1.0), jit_compile=False).stages.values()
    assert all(stage.bounds == (-1.0, 1.0) and stage.jit_compile is False for stage in stages)


def test_the_adaptive_attack_climbs_each_objective():
    loss = {"name": "weighted", "objectives": ["cross_entropy", "kl"], "weights": [1.0, 6.0]}
    attack = Adaptive(eps=0.3, objectives=["cross_entropy", loss], steps=7, step_size=0.1, restarts=2)
    assert list(attack.stages) == [
        "apgd cross_entropy",
        "pgd cross_entropy",
        "apgd 1 cross_entropy + 6 kl",
        "pgd 1 cross_entropy + 6 kl",
    ]
    assert attack.stages["apgd 1 cross_entropy + 6 kl"] == APGD(
        eps=0.3, loss=attack.objectives[1], steps=7, restarts=2
    )
    assert attack.stages["pgd cross_entropy"].step() == 0.1
    assert type(attack.stages["pgd cross_entropy"]) is PGD


def test_the_loss_that_was_trained_can_be_climbed_by_itself_and_by_pgd():
    options = {"eps": 0.3, "steps": 7, "step_size": 0.1, "restarts": 2}
    attack = Adaptive(objectives=["dlr", "margin"], version="loss", **options)
    assert attack.stages == {"pgd dlr": PGD(loss=attack.objectives[0], **options)}
    with pytest.raises(InputError, match="Unknown version of the adaptive attack: 'los'"):
        Adaptive(eps=0.3, version="los")


def test_a_classifier_brings_its_objectives_the_loss_that_was_trained_first():
    assert Adaptive.options_for(load("trades_digits"))["objectives"][0]["name"] == "weighted"


@pytest.mark.parametrize("objectives", [[], "cross_entropy", None, [{"name": "crossentropy"}]])
def test_bad_objectives_are_told(objectives):
    with pytest.raises(InputError, match="objective"):
        Adaptive(eps=0.1, objectives=objectives)


def test_a_search_in_bfloat16_follows_the_weights_and_gives_float32_logits(build_conv_classifier):
    model = build_conv_classifier()
    images = np.random.default_rng(0).random((6, 8, 8, 1), np.float32)
    copy = bfloat16_copy(model)
    assert bfloat16_copy(model) is copy and copy(images).dtype == "float32"
    difference = np.abs(copy(images) - model(images)).max()
    assert 0 < difference < 0.05, "reduced precision, the same function"
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert np.abs(bfloat16_copy(model)(images) - model(images)).max() < 0.2
    assert all(layer.compute_dtype == "float32" for layer in model._flatten_layers())
    labels = np.zeros(6, "int32")
    attack = PGD(eps=0.2, steps=3, search_dtype="bfloat16")
    moved = attack(model, images, labels)
    assert moved.dtype == np.float32 and np.abs(moved - images).max() <= 0.2 + 1e-6
    assert not np.array_equal(moved, PGD(eps=0.2, steps=3)(model, images, labels))


def test_objectives_of_one_label_are_all_climbed():
    margins = [{"name": "margin", "confidence": confidence} for confidence in (0.0, 50.0)]
    stages = Adaptive(eps=0.1, objectives=[margins[0], "dlr", margins[1]]).stages
    assert list(stages) == [
        f"{kind} {name}" for name in ("margin", "dlr", "margin 2") for kind in ("apgd", "pgd")
    ]
    assert stages["pgd margin 2"].loss.confidence == 50


@pytest.mark.parametrize("version", ["standard", "plus", "rand", "fast"])
def test_autoattack_is_asked_for_a_version_rather_than_a_precision(version):
    with pytest.raises(InputError, match='Take version="fast"'):
        AutoAttack(eps=0.1, version=version, search_dtype="bfloat16")


def test_what_reduced_precision_alone_calls_wrong_is_tried_again():
    # 0.5 + 2^-10 is 0.5 in bfloat16, below the threshold that it is above in float32.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), keras.layers.Dense(2)])
    weights = [[[1.0]], [0.0], [[1.0, 0.0]], [-0.5 - 2**-11, 0.0]]
    model.set_weights([np.array(weight, "float32") for weight in weights])
    images, labels = np.array([[0.5 + 2**-10], [0.25]], "float32"), np.zeros(2, "int32")
    assert np.argmax(bfloat16_copy(model)(images), -1).tolist() == [1, 1]
    assert np.argmax(model(images), -1).tolist() == [0, 1]
    tried = []

    class Stays(RepeatedAttack):
        def _attempt(self, model, images, labels, targets, noise):
            tried.append(images.ravel().tolist())
            return images

    Stays(eps=0.1, restarts=2, search_dtype="bfloat16")(model, images, labels)
    assert tried == [images.ravel().tolist(), images[0].tolist()]
