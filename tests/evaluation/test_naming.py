"""Attacks by short names."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from keras_robust.attacks import DDN, FGSM, PGD, Attack, AutoAttack, Objective, Square, attacks
from keras_robust.errors import InputError
from keras_robust.evaluation import attack_named
from keras_robust.evaluation.naming import named_attacks, settings, short_name

THREAT = {"norm": "linf", "eps": 0.3, "step_size": 0.01}
MODEL = SimpleNamespace(adaptive=[{"name": "cross_entropy"}, {"name": "margin", "confidence": 2.0}])


@pytest.mark.parametrize("key", list(attacks))
def test_every_attack_has_a_short_name_that_reads_back(key):
    cls = attacks[key]
    radius = {} if cls.minimal else {"eps": 0.3}  # the nearest image, whatever its distance
    attack = cls(norm=cls.norms[0], **radius, **cls.options_for(MODEL))
    name = short_name(attack)
    assert "_" not in name and attack_named(name, {"norm": cls.norms[0], "eps": 0.3}, MODEL) == attack


def test_a_variant_is_named():
    attack = attack_named("autoattack-fast", THREAT)
    assert attack == AutoAttack(eps=0.3, version="fast") and short_name(attack) == "autoattack-fast"
    assert short_name(AutoAttack(eps=0.3)) == "autoattack"
    with pytest.raises(InputError, match="Unknown version of AutoAttack: 'fats'"):
        attack_named("autoattack-fats", THREAT)
    with pytest.raises(InputError, match="pgd-fast: pgd has no variants"):
        attack_named("pgd-fast", THREAT)


def test_a_minimum_norm_attack_keeps_to_norms_it_knows():
    assert attack_named("ddn-10", THREAT) == DDN(steps=10)
    assert attack_named("rays-10", {"norm": "l2", "eps": 1.0}).norm == "linf"
    assert attack_named("fab-10", {"norm": "l2", "eps": 1.0}).norm == "l2"


@pytest.mark.parametrize("key", list(attacks))
def test_the_budget_of_every_attack_is_set_by_the_number(key):
    budget, dashed = attacks[key].budget, key.replace("_", "-")
    if budget is None:
        with pytest.raises(InputError, match=f"{dashed}-7: {key} takes no number. Write {dashed}."):
            attack_named(f"{dashed}-7", THREAT)
    else:
        assert getattr(attack_named(f"{dashed}-7", THREAT, MODEL), budget) == 7


@pytest.mark.parametrize("key", list(attacks))
def test_restarts_are_set_behind_the_budget(key):
    budget, name = attacks[key].budget, f"{key.replace('_', '-')}-7x5"
    if budget and "restarts" in attacks[key].__dataclass_fields__:
        attack = attack_named(name, THREAT, MODEL)
        assert (getattr(attack, budget), attack.restarts, short_name(attack)) == (7, 5, name)
    else:
        with pytest.raises(InputError, match=f"{key} (knows no restarts|takes no number). Write "):
            attack_named(name, THREAT, MODEL)


def test_names_stand_for_attacks_in_the_threat_model():
    assert attack_named("clean", THREAT) is None
    assert attack_named("pgd-40", THREAT) == PGD(eps=0.3, steps=40, step_size=0.01)
    assert attack_named("pgd-40", {**THREAT, "step_size": None}) == PGD(eps=0.3, steps=40)
    assert attack_named("pgd-4", {"norm": "l2", "eps": 1.0}) == PGD(eps=1.0, norm="l2", steps=4)
    assert attack_named("fgsm", THREAT) == FGSM(eps=0.3), "one step of the whole radius"
    assert attack_named("square-50", THREAT) == Square(eps=0.3, queries=50)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pdg-40", ["Unknown attack: 'pdg-40'", "Did you mean 'pgd-40'"]),
        ("pgd40", ["Unknown attack: 'pgd40'", "pgd-40"]),
        ("pgd-", ["'pgd-'"]),
        ("pgd--4", ["'pgd--4'"]),
        ("PGD-4", ["'PGD-4'"]),
        ("pgd-4.5", ["'pgd-4.5'"]),
        ("", ["''", "clean", "square-5000", "fgsm"]),
        ("pgd-0", ["steps", ">= 1"]),
        ("pgd-3x0", ["restarts", ">= 1"]),
        ("pgd-3x", ["'pgd-3x'"]),
        ("square-0", ["queries", ">= 1"]),
    ],
)
def test_bad_names_are_told(name, words):
    with pytest.raises(InputError) as error:
        attack_named(name, THREAT)
    for word in words:
        assert word in str(error.value)


PGD_3 = PGD(eps=0.1, steps=3)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("fgsm", {"fgsm": FGSM(eps=0.3)}),
        (PGD_3, {"pgd-3": PGD_3}),
        (["clean", "fgsm", PGD_3], {"fgsm": FGSM(eps=0.3), "pgd-3": PGD_3}),
        (("fgsm", "fgsm"), {"fgsm": FGSM(eps=0.3)}),
        ({"mine": PGD_3, "other": "fgsm"}, {"mine": PGD_3, "other": FGSM(eps=0.3)}),
        ({"clean": None, "mine": PGD_3}, {"mine": PGD_3}),
        ([], {}),
    ],
)
def test_attacks_may_be_given_in_several_ways(wanted, expected):
    named = named_attacks(wanted, THREAT)
    assert named == {"clean": None, **expected} and next(iter(named)) == "clean"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([3], "An attack is a short name or an Attack. Received: 3"),
        (None, "Received: None"),
        ({"mine": None}, "Received: None"),
        ({"clean": PGD_3}, "Two attacks are called clean"),
        ([PGD_3, PGD(eps=0.1, steps=3, momentum=1.0)], "Two attacks are called pgd-3"),
        (["fgsm", FGSM(eps=0.1)], "Two attacks are called fgsm"),
        (PGD(eps=0.1, targeted=True), "an evaluation has no targets. Take an attack with its own"),
        (PGD(eps=0.1, bounds=(0.0, 2.0)), "evaluated in bounds (0.0, 1.0). Received: bounds=(0.0, 2.0)"),
    ],
)
def test_what_is_no_attack_or_hides_one_is_told(wanted, words):
    with pytest.raises(InputError) as error:
        named_attacks(wanted, THREAT)
    assert words in str(error.value)


@pytest.mark.parametrize("key", list(attacks))
def test_settings_repeat_the_attack(key):
    attack = attacks[key](eps=0.3, norm=attacks[key].norms[0])
    stated = settings(attack)
    assert (stated["eps"], stated["norm"]) == (0.3, attack.norm)
    again: Attack = attacks[key](**stated)
    assert settings(again) == stated
    if attack.budget:
        assert stated[attack.budget] == getattr(attack, attack.budget)


def test_settings_state_that_there_is_no_random_start():
    assert settings(PGD(eps=0.1, start=None))["start"] is None
    assert "start" not in settings(PGD(eps=0.1))


def test_settings_are_plain_data():
    stated = settings(PGD(eps=np.float32(0.5), steps=2, step_size=np.float32(0.25)))
    assert json.loads(json.dumps(stated)) == stated


def test_an_objective_that_is_not_registered_is_stated_by_its_class():
    @dataclass(frozen=True)
    class Mine(Objective):
        pass

    assert settings(PGD(eps=0.1, loss=Mine()))["loss"] == "Mine"


def test_settings_state_the_step_size_in_use():
    assert settings(PGD(eps=0.1, steps=5))["step_size"] == pytest.approx(0.05)
    assert settings(FGSM(eps=0.1))["step_size"] == 0.1
