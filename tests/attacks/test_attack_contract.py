"""What holds for every registered attack, and for attacks as values."""

import copy
import dataclasses
import itertools
from functools import partial

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust import losses
from keras_robust.attacks import (
    FGSM,
    MIM,
    PGD,
    Attack,
    MultiTargeted,
    Square,
    attacks,
    classify,
    get,
    get_objective,
    objectives,
)
from keras_robust.attacks.autoattack import VERSIONS
from keras_robust.attacks.compiling import trace_count
from keras_robust.errors import InputError
from keras_robust.threat import NORMS, ThreatModel

# What makes an attack cheap, where it has such an option, and what makes a cheap one strong.
BUDGET = {"steps": 3, "queries": 12, "classes": 2, "binary_search_steps": 2}
STRENGTH = {
    "steps": 10,
    "iterations": 4,
    "queries": 300,
    "learning_rate": 0.3,
    "initial_const": 1.0,
    "binary_search_steps": 3,
}
SHORT = {"steps": 10, "queries": 300, "classes": 2}  # of a stage of AutoAttack
# Options that may change without a new trace.
CHANGES = {
    "eps": 0.1,
    "steps": 2,
    "iterations": 2,
    "xi": 0.2,
    "step_size": 0.01,
    "queries": 8,
    "learning_rate": 0.02,
    "gamma": 0.1,
}
NEEDED = {"weighted": {"objectives": ["cross_entropy", "kl"], "weights": [1.0, 6.0]}}  # by objectives
EPS = {"linf": 0.2, "l2": 1.0}  # most examples fall: what stands costs all of an attack's budget
TOLERANCE = 1e-6
rng = np.random.default_rng(0)
IMAGES = rng.uniform(size=(6, 8, 8, 1)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 4, 0], "int32")


def supported(name, options):
    known = {field.name for field in dataclasses.fields(attacks[name])}
    return {option: value for option, value in options.items() if option in known}


def make(name, norm, budget=BUDGET, **options):
    return get(name, **{"eps": EPS[norm], "norm": norm, **supported(name, budget), **options})


def accepts(name, norm):
    try:
        return bool(make(name, norm))
    except InputError:
        return False


@pytest.fixture(scope="module", autouse=True)
def short_stages():
    """AutoAttack takes no budget; what its stages are is the matter of test_sequence."""
    with pytest.MonkeyPatch.context() as patch:
        for version, stages in VERSIONS.items():
            patch.setitem(VERSIONS, version, partial(shortened, stages))
        yield


def shortened(stages, **common):
    for name, stage in stages(**common):
        known = {field.name for field in dataclasses.fields(stage)}
        short = {option: value for option, value in SHORT.items() if option in known}
        yield name, dataclasses.replace(stage, **short)


CASES = [case for case in itertools.product(attacks, NORMS) if accepts(*case)]
every_attack = pytest.mark.parametrize(("name", "norm"), CASES)


def assert_inside(attack, adversarial, images):
    assert adversarial.shape == images.shape and adversarial.dtype == np.float32
    assert np.isfinite(adversarial).all()
    low, high = attack.bounds
    assert low <= adversarial.min() and adversarial.max() <= high
    distance = np.asarray(ThreatModel(attack.norm).distance(adversarial, images))
    assert (distance <= attack.eps + TOLERANCE).all()


def test_every_attack_works_in_some_ball():
    assert {name for name, _ in CASES} == set(attacks)


@every_attack
@settings(max_examples=6)
@given(eps=st.floats(0, 1), seed=st.integers(0, 2**31 - 1))
def test_result_is_inside_the_ball_and_the_bounds(conv_classifier, name, norm, eps, seed):
    attack = make(name, norm, eps=eps)
    assert_inside(attack, attack(conv_classifier, IMAGES, LABELS, seed=seed), IMAGES)


@every_attack
def test_result_is_inside_other_bounds(conv_classifier, name, norm):
    images = np.clip(IMAGES, 0.25, 0.75)
    attack = make(name, norm, bounds=[0.25, 0.75], eps=0.4)
    assert_inside(attack, attack(conv_classifier, images, LABELS), images)


@every_attack
def test_no_radius_no_change(conv_classifier, name, norm):
    np.testing.assert_allclose(
        make(name, norm, eps=0)(conv_classifier, IMAGES, LABELS), IMAGES, atol=TOLERANCE
    )


@every_attack
def test_model_and_input_are_left_as_they_were(conv_classifier, name, norm):
    model = conv_classifier

    def state():  # with the seeds of dropout
        return [np.copy(keras.ops.convert_to_numpy(variable)) for variable in model.variables]

    before, outputs, images = state(), model(IMAGES), IMAGES.copy()
    adversarial = make(name, norm)(model, images, LABELS)
    for one, other in zip(before, state(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(outputs, model(IMAGES))
    np.testing.assert_array_equal(images, IMAGES)
    assert not np.shares_memory(adversarial, images)


@every_attack
def test_the_attack_hurts(digits_classifier, digits, name, norm):
    images, labels = digits[0][:60], digits[1][:60]
    attack = make(name, norm, STRENGTH, eps={"linf": 0.3, "l2": 2.0}[norm])
    adversarial = attack(digits_classifier, images, labels)
    assert (classify(digits_classifier, images) == labels).mean() > 0.9
    assert (classify(digits_classifier, adversarial) == labels).mean() < 0.2


@every_attack
def test_same_seed_same_result(conv_classifier, name, norm):
    first, again = (make(name, norm)(conv_classifier, IMAGES, LABELS, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@every_attack
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_any_batch_size(conv_classifier, name, norm, batch_size):
    attack = make(name, norm)
    adversarial = attack(conv_classifier, IMAGES, LABELS, batch_size=batch_size)
    assert_inside(attack, adversarial, IMAGES)
    again = attack(conv_classifier, IMAGES[:batch_size], LABELS[:batch_size], batch_size=batch_size)
    np.testing.assert_allclose(again, adversarial[:batch_size], atol=1e-4)


@every_attack
def test_traced_once(build_conv_classifier, name, norm):
    model = build_conv_classifier()
    make(name, norm, eps=0.01)(model, IMAGES, LABELS)  # all stand: every part of an attack is needed
    traces = trace_count(model)
    assert traces > 0
    for option, value in supported(name, CHANGES).items():
        make(name, norm, **{option: value})(model, IMAGES[:3], LABELS[:3], seed=9)
    make(name, norm)(model, IMAGES, LABELS, batch_size=2)
    assert trace_count(model) == traces


@pytest.mark.slow
@every_attack
def test_compiled_by_xla_agrees(conv_classifier, name, norm):
    plain, xla = (
        make(name, norm, jit_compile=jit)(conv_classifier, IMAGES, LABELS, seed=2) for jit in (False, True)
    )
    np.testing.assert_allclose(xla, plain, atol=1e-4)


@every_attack
def test_round_trips(conv_classifier, name, norm):
    attack = make(name, norm, bounds=(0.0, 1.0), jit_compile=False)
    serialized = keras.saving.serialize_keras_object(attack)
    for again in (
        type(attack).from_config(attack.get_config()),
        keras.saving.deserialize_keras_object(serialized),
        get({"name": name, **attack.get_config()}),
    ):
        assert type(again) is type(attack) and again == attack
        np.testing.assert_array_equal(
            again(conv_classifier, IMAGES, LABELS), attack(conv_classifier, IMAGES, LABELS)
        )


@every_attack
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((IMAGES * 255).astype("uint8"), LABELS, "Divide by 255"),
        (IMAGES * 255, LABELS, r"must be in \[0, 1\]"),
        (np.where(IMAGES > 0.5, np.nan, IMAGES), LABELS, "NaN"),
        (IMAGES[..., 0], LABELS, "wrong shape"),
        (IMAGES[:0], LABELS[:0], "no images"),
        (IMAGES, np.eye(5)[LABELS], "argmax"),
        (IMAGES, LABELS + 1, "0 to 4"),
        (IMAGES, LABELS[:2], "one label for each image"),
        (IMAGES, LABELS.astype(float), "must be integers"),
    ],
)
def test_wrong_arrays_are_refused(conv_classifier, name, norm, images, labels, message):
    with pytest.raises(InputError, match=message):
        make(name, norm)(conv_classifier, images, labels)


@every_attack
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, "eps must be.*-0.1"),
        ({"eps": "0.3"}, "eps must be.*'0.3'"),
        ({"bounds": (1.0, 0.0)}, "low < high"),
        ({"bounds": 1.0}, "low < high"),
        ({"jit_compile": "yes"}, "jit_compile must be"),
        ({"epss": 0.1}, "Unknown option of attack.*'epss'. Did you mean 'eps'"),
    ],
)
def test_wrong_options_are_refused(name, norm, options, message):
    with pytest.raises(InputError, match=message):
        make(name, norm, **options)


@every_attack
def test_unwanted_targets_are_refused(conv_classifier, name, norm):
    with pytest.raises(InputError, match="targets"):
        make(name, norm)(conv_classifier, IMAGES, LABELS, (LABELS + 1) % 5)


@every_attack
@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_wrong_batch_size_is_refused(conv_classifier, name, norm, batch_size):
    with pytest.raises(InputError, match="batch_size"):
        make(name, norm)(conv_classifier, IMAGES, LABELS, batch_size=batch_size)


@every_attack
@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_wrong_seed_is_refused(conv_classifier, name, norm, seed):
    if name != "rays":  # it draws nothing
        with pytest.raises(InputError, match="seed must be an integer >= 0"):
            make(name, norm)(conv_classifier, IMAGES, LABELS, seed=seed)


@every_attack
def test_numpy_numbers_are_numbers(name, norm):
    made = make(name, norm)
    numbers = {
        field.name: np.asarray(getattr(made, field.name))[()]
        for field in dataclasses.fields(made)
        if isinstance(getattr(made, field.name), int | float)
    }
    again = dataclasses.replace(made, **numbers)
    assert again == made and not any(isinstance(getattr(again, key), np.generic) for key in numbers)


def test_images_outside_the_bounds_are_refused(conv_classifier):
    with pytest.raises(InputError, match="inside bounds"):
        FGSM(eps=0.1, bounds=(0.4, 0.6))(conv_classifier, IMAGES, LABELS)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (PGD, {"eps": float("inf")}, "eps must be a finite number"),
        (PGD, {"steps": 0}, "steps must be an integer >= 1.*steps=0"),
        (PGD, {"steps": 2.0}, "steps must be an integer"),
        (PGD, {"steps": True}, "steps must be an integer"),
        (PGD, {"restarts": 0}, "restarts must be"),
        (PGD, {"check_every": 0}, "check_every must be"),
        (PGD, {"step_size": 0}, "step_size must be"),
        (PGD, {"step_size": "big"}, "step_size must be"),
        (PGD, {"step_size": float("inf")}, "step_size must be"),
        (MIM, {"momentum": -1}, "momentum must be"),
        (PGD, {"start": "gaussian"}, "start must be one of"),
        (PGD, {"norm": "linff"}, "Unknown norm: 'linff'. Did you mean 'linf'"),
        (PGD, {"loss": "marginn"}, "Unknown objective: 'marginn'. Did you mean 'margin'"),
        (PGD, {"loss": 3}, "An attack's loss is a name"),
        (PGD, {"loss": "kl", "targeted": True}, "KL has no targeted form"),
        (MultiTargeted, {"loss": "reverse_kl"}, "has no targeted form"),
        (MultiTargeted, {"targeted": True}, "chooses its own targets"),
        (Square, {"queries": 0}, "queries must be"),
        (Square, {"p_init": 1.5}, "p_init must be"),
    ],
)
def test_own_options_are_checked(cls, options, message):
    with pytest.raises(InputError, match=message):
        cls(**{"eps": 0.1, **options})


def test_targeted_attacks_need_their_targets(conv_classifier):
    attack = PGD(eps=0.1, targeted=True)
    with pytest.raises(InputError, match="if and only if targeted=True"):
        attack(conv_classifier, IMAGES, LABELS)
    with pytest.raises(InputError, match="0 to 4"):
        attack(conv_classifier, IMAGES, LABELS, LABELS + 5)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        ("pdg", {"eps": 0.1}, "Unknown attack: 'pdg'. Did you mean 'pgd'"),
        ("pgd", {}, "needs eps"),
        ({"eps": 0.1}, {}, 'needs a "name"'),
        (PGD(eps=0.1), {"steps": 3}, "Options go with the name"),
    ],
)
def test_get_refuses(attack, options, message):
    with pytest.raises(InputError, match=message):
        get(attack, **options)


def test_get_resolves():
    attack = PGD(eps=0.1, steps=4)
    assert get(attack) is attack
    assert get("pgd", eps=0.1, steps=4) == attack == get({"name": "pgd", "eps": 0.1}, steps=4)


@pytest.mark.parametrize(
    "loss", [losses.Margin(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)]
)
def test_a_keras_loss_survives_saving(conv_classifier, loss):
    attack = PGD(eps=0.1, steps=2, loss=loss)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
    assert again.loss.get_config() == loss.get_config()
    np.testing.assert_array_equal(
        again(conv_classifier, IMAGES, LABELS), attack(conv_classifier, IMAGES, LABELS)
    )


@pytest.mark.parametrize("name", objectives)
def test_an_objective_survives_saving(name):
    attack = PGD(eps=0.1, loss=get_objective({"name": name, **NEEDED.get(name, {})}))
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack)) == attack


def test_two_attack_objects_share_one_trace(build_conv_classifier):
    model = build_conv_classifier()
    loss = losses.Margin(1.0)
    for options in ({"loss": "margin"}, {"loss": loss}, {"momentum": 0.5}):
        PGD(eps=0.1, steps=2, **options)(model, IMAGES, LABELS)
        traces = trace_count(model)
        PGD(eps=0.2, steps=3, restarts=2, start="normal", **options)(model, IMAGES, LABELS)
        assert trace_count(model) in (traces, traces + 1)  # restarts look at the classes as well
        traces = trace_count(model)
        PGD(eps=0.2, steps=3, **options)(model, IMAGES, LABELS)
        assert trace_count(model) == traces


def test_a_static_option_has_its_own_trace(build_conv_classifier):
    model = build_conv_classifier()
    variants = [{}, {"loss": "margin"}, {"norm": "l2"}, {"keep_best": True}, {"momentum": 1.0}]
    for count, options in enumerate(variants, start=1):
        PGD(eps=0.1, steps=1, **options)(model, IMAGES, LABELS)
        assert trace_count(model) == count


def test_new_weights_are_seen_without_a_new_trace(linear):
    weights = rng.normal(size=(4, 2)).astype("float32")
    model = linear(weights, (2, 2, 1))
    images, labels = np.full((2, 2, 2, 1), 0.5, "float32"), np.array([0, 1])
    before = FGSM(eps=0.1)(model, images, labels)
    model.layers[-1].kernel.assign(-weights)
    np.testing.assert_allclose(FGSM(eps=0.1)(model, images, labels) - 0.5, 0.5 - before, atol=1e-6)
    assert trace_count(model) == 1


def test_an_attacked_model_can_be_saved_and_copied(build_conv_classifier, tmp_path):
    model = build_conv_classifier()
    PGD(eps=0.1, steps=1, restarts=2)(model, IMAGES, LABELS)
    model.save(tmp_path / "model.keras")
    for again in (keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(model)):
        np.testing.assert_allclose(again(IMAGES), model(IMAGES), atol=1e-6)
        assert trace_count(again) == 0


def test_an_attack_is_an_immutable_value():
    attack = PGD(eps=0.1)
    assert attack == PGD(eps=0.1) != PGD(eps=0.2)
    assert len({attack, PGD(eps=0.1)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.eps = 1.0
    with pytest.raises(NotImplementedError):
        Attack(eps=0.1)._run(None, None, None, None, (0, 0))
