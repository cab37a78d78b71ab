"""What each check warns of, what it lets pass, and what all say of classifiers that are masked on purpose."""

import math

import numpy as np
import pytest

from keras_robust import data, models, zoo
from keras_robust.attacks import classify
from keras_robust.evaluation import Outcome
from keras_robust.evaluation.checks import Evidence, checks, warnings
from keras_robust.evaluation.masked import masked
from keras_robust.evaluation.probes import probe
from keras_robust.evaluation.report import Stage
from keras_robust.threat import ThreatModel

# Calibration: classifiers whose gradients are known to be hidden, and honest ones

STUCK = {"zero_gradients", "flat_in_eps", "survives_large_eps", "planted_example_missed"}
FITTING = {
    "saturated": STUCK | {"targeted_stronger"},
    "quantized": STUCK,
    "noisy": {"varying_outputs"},
    "purifying": {"gradients_at_inference"},
}


def probed(model, images, labels, eps):
    right = np.flatnonzero(classify(model, images) == labels)[:64]
    return probe(model, images[right], labels[right], ThreatModel("linf", eps))


def raised(evidence):
    return {name for name in checks if checks[name](evidence)}


@pytest.fixture(scope="module")
def splitted(digits_classifier):
    return models.split(digits_classifier, at=digits_classifier.layers[0])


@pytest.mark.parametrize("kind", masked)
def test_a_masked_classifier_raises_the_fitting_warnings(kind, splitted, digits):
    images, labels = digits
    assert FITTING[kind] <= raised(Evidence({}, probed(masked[kind](splitted), images, labels, 0.1), 64))


@pytest.mark.parametrize("name", ["ridge", "at_digits"])
def test_an_honest_classifier_raises_none(name, splitted):
    model, eps = (splitted, 0.1) if name == "ridge" else (zoo.load(name), zoo.card(name).threat["eps"])
    values = probed(model, *data.load("digits", "test"), eps)
    assert values["probed"] == 64 and raised(Evidence({}, values, 64)) == set()


def test_masking_keeps_the_decisions(splitted, digits):
    images, labels = digits
    clean = {
        kind: (classify(masked[kind](splitted), images) == labels).mean()
        for kind in ("saturated", "quantized")
    }
    honest = (classify(splitted, images) == labels).mean()
    assert clean["saturated"] == honest and clean["quantized"] > honest - 0.02


# Each check by itself

HONEST = {
    "probed": 64.0,
    "pgd_20": 64.0625,
    "pgd_20_half_eps": 92.1875,
    "pgd_20_double_eps": 0.0,
    "pgd_20_whole_range": 0.0,
    "pgd_20_targeted": 64.0625,
    "only_pgd_20": 1.5625,
    "only_pgd_20_targeted": 1.5625,
    "pgd_10": 65.625,
    "pgd_100": 64.0625,
    "only_pgd_10": 0.0,
    "only_pgd_100": 1.5625,
    "zero_gradients": 0.0,
    "varying_outputs": 1e-6,
    "gradient_operations": 0.0,
    "planted_found": 100.0,
    "planted_random": 10.0,
    "planted_images": 32.0,
}


def share(count, total=64):
    return 100 * count / total


def targets(gained, lost):
    """Probes of which targeted and untargeted PGD have broken so many alone."""
    return {
        "pgd_20": share(41),
        "pgd_20_targeted": share(41 - gained + lost),
        "only_pgd_20_targeted": share(gained),
        "only_pgd_20": share(lost),
    }


def test_honest_probes_raise_nothing_and_neither_do_none():
    assert warnings(Evidence({}, HONEST, 64)) == warnings(Evidence({}, {}, 64)) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("flat_in_eps", {"pgd_20_half_eps": share(45), "pgd_20_double_eps": share(44)}, "70.3% at half"),
        ("flat_in_eps", {"pgd_20_half_eps": share(45), "pgd_20_double_eps": share(40)}, None),
        ("flat_in_eps", {"pgd_20_half_eps": share(0), "pgd_20_double_eps": share(0)}, None),
        ("flat_in_eps", {"pgd_20_half_eps": share(64), "pgd_20_double_eps": share(63)}, None),  # a small eps
        (
            "flat_in_eps",
            {
                "pgd_20_half_eps": share(64),
                "pgd_20_double_eps": share(63),
                "pgd_20_whole_range": share(60),
            },
            "98.4% at twice",
        ),
        ("survives_large_eps", {"pgd_20_whole_range": share(20)}, "31.2% survive"),
        ("survives_large_eps", {"pgd_20_whole_range": share(4)}, None),
        ("targeted_stronger", targets(12, 0), "leaves 45.3%, untargeted 64.1%"),
        ("targeted_stronger", targets(12, 2), "leaves 48.4%"),
        ("targeted_stronger", targets(18, 8), None),  # chance might do it
        ("targeted_stronger", targets(9, 0), None),  # TRADES does it
        ("targeted_stronger", targets(0, 20), None),
        ("more_steps_weaker", {"only_pgd_10": share(12), "pgd_10": 50.0}, "PGD-10 50.0%"),
        ("more_steps_weaker", {"only_pgd_10": share(5)}, None),
        ("more_steps_weaker", {"only_pgd_100": share(30)}, None),
        ("zero_gradients", {"zero_gradients": share(20)}, "31.2%"),
        ("zero_gradients", {"zero_gradients": share(6)}, None),
        ("varying_outputs", {"varying_outputs": 0.031}, "3.1%"),
        ("varying_outputs", {"varying_outputs": 1e-5}, None),
        ("gradients_at_inference", {"gradient_operations": 38.0}, "38 operations"),
        ("planted_example_missed", {"planted_found": share(20, 32)}, "62.5% of 32"),
        ("planted_example_missed", {"planted_found": share(30, 32)}, None),
        ("planted_example_missed", {"planted_found": 0.0, "planted_images": 1.0}, None),  # proves nothing
        ("planted_example_missed", {"planted_found": 0.0, "planted_images": 0.0}, None),
    ],
)
def test_a_check_on_probes_warns_alone_and_states_the_numbers(name, change, said):
    evidence = Evidence({}, {**HONEST, **change}, 64)
    message = checks[name](evidence)
    assert message is None if said is None else said in message
    assert set(warnings(evidence)) - {message} <= {checks["survives_large_eps"](evidence)}


# Black-box and white-box attacks: by one example each, as numbers of a stated set


def outcome(examples, fallen, **options):
    correct = np.ones(examples, bool)
    correct[list(fallen)] = False
    return Outcome(correct, **options)


def duel(only_black, only_white, both=20, examples=1000):
    """PGD and Square, of which each broke so many examples that the other did not."""
    clean = outcome(examples, [])
    white = outcome(examples, range(both + only_white))
    black = outcome(
        examples, [*range(both), *range(both + only_white, both + only_white + only_black)], black_box=True
    )
    return Evidence({"clean": clean, "pgd": white, "square": black}, {}, examples)


@pytest.mark.parametrize("only_black", range(0, 41, 5))
@pytest.mark.parametrize("only_white", (0, 4, 15))
def test_black_box_attacks_are_compared_by_a_sign_test(only_black, only_white):
    trials = only_black + only_white
    tail = sum(math.comb(trials, k) for k in range(only_black, trials + 1)) / 2**trials
    more_than_a_point = only_black - only_white > 10
    message = checks["black_box_stronger"](duel(only_black, only_white))
    assert bool(message) == (tail < 0.01 and more_than_a_point)


def test_the_message_on_black_box_attacks_states_the_numbers():
    (message,) = warnings(duel(60, 10))
    assert message.startswith("square leaves 92.0%") and "best white-box attack pgd (97.0%)" in message
    assert "60 examples fell to black-box attacks only, 10 to white-box ones only" in message


def test_what_an_honest_mnist_model_gives_is_let_pass():
    assert warnings(duel(10, 4, both=70)) == []  # at_mnist: APGD 92.6, Square 92.0, both 91.6 %


def test_a_white_box_attack_that_breaks_the_same_examples_clears_the_model():
    evidence = duel(60, 10)
    strong = outcome(1000, range(0, 90))
    assert warnings(evidence._replace(outcomes={**evidence.outcomes, "apgd": strong})) == []


def test_attacks_in_another_ball_and_attacks_of_one_kind_are_not_compared():
    evidence = duel(60, 10)
    elsewhere = outcome(1000, range(200), black_box=True, counted=False)
    honest = {**evidence.outcomes, "square": elsewhere}
    assert warnings(evidence._replace(outcomes=honest)) == []
    for name in ("pgd", "square"):
        assert warnings(evidence._replace(outcomes={name: evidence.outcomes[name]})) == []


BLACK = {"apgd": False, "apgd_targeted": False, "fab_targeted": False, "square": True}


def sequence(percent, examples=1000, kinds=BLACK):
    stages = {
        name: Stage(np.arange(examples) < round(share * examples / 100), black_box)
        for (name, black_box), share in zip(kinds.items(), percent, strict=True)
    }
    *_, last = stages.values()
    return Evidence(
        {"clean": outcome(examples, []), "autoattack": Outcome(last.standing, stages=stages)}, {}, examples
    )


@pytest.mark.parametrize(
    ("percent", "examples", "warns"),
    [
        ((83, 81, 70, 64), 1000, True),  # masked
        ((83, 81, 70, 64), 100, True),
        ((92.6, 92.6, 92.6, 91.6), 1000, False),  # honest, even if the stages between found nothing
        ((95, 94, 94, 92), 100, False),
        ((95, 94, 94, 93), 10_000, False),
        ((95, 94, 94, 91), 10_000, True),
    ],
)
def test_what_only_the_last_stage_breaks_is_weighed(percent, examples, warns):
    said = warnings(sequence(percent, examples))
    assert len(said) == warns
    if warns:
        (message,) = said
        assert message.startswith(
            f"autoattack: square took what stands from {percent[2]}.0% to {percent[3]}.0%"
        )


def test_a_white_box_attack_at_the_end_is_no_sign():
    assert warnings(sequence((95, 70), kinds={"apgd": False, "fab_targeted": False})) == []
    assert warnings(sequence((95, 70), kinds={"square": True, "apgd": False})) == []


def test_the_white_box_stages_of_a_sequence_count_against_other_black_box_attacks():
    evidence = sequence((83, 81, 80, 80))
    for broken, warns in ((range(800, 1000), 0), (range(700, 1000), 1)):
        rays = outcome(1000, broken, black_box=True)
        assert len(warnings(evidence._replace(outcomes={**evidence.outcomes, "rays": rays}))) == warns


@pytest.mark.parametrize(("only_grey", "only_ends", "warns"), [(20, 2, True), (6, 4, False), (2, 20, False)])
def test_an_attack_end_to_end_should_leave_no_more_than_one_in_the_grey_box(only_grey, only_ends, warns):
    grey, ends = np.ones(100, bool), np.ones(100, bool)
    grey[:only_grey] = False
    ends[only_grey : only_grey + only_ends] = False
    outcomes = {"clean": Outcome(np.ones(100, bool)), "pgd-9": Outcome(ends), "pgd-9 grey_box": Outcome(grey)}
    said = checks["grey_box_stronger"](Evidence(outcomes, {}, 100))
    assert (said is not None) is warns
    if said:
        assert said.startswith(f"pgd-9 leaves {100 - only_ends}.0% end to end, but {100 - only_grey}.0%")
