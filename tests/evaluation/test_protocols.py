"""A classifier that changes its input is attacked end to end and in the grey box."""

import random

import numpy as np
import pytest

from keras_robust import evaluation
from keras_robust.attacks import BIM, DDN, AutoAttack, RayS, Square, classify
from keras_robust.attacks.made_on import MadeOn
from keras_robust.errors import InputError
from keras_robust.evaluation.naming import settings
from keras_robust.evaluation.protocols import asked_for, by_protocol
from keras_robust.models import build_discriminator, split, with_manifold_transform

EPS = 0.1


@pytest.fixture(scope="module")
def static(digits_classifier):
    return split(digits_classifier, at=0)


@pytest.fixture(scope="module")
def transformed(static):
    random.seed(0)
    judge = build_discriminator("residual_mlp", (10,), depth=1, width=16)
    return with_manifold_transform(static, judge, "imt", eps=0.05)


def quiet(model, source, attacks, **options):
    return evaluation.evaluate(model, source, attacks, eps=EPS, checks=False, progress=False, **options)


def test_each_protocol_is_what_it_is_by_hand(static, transformed, digits):
    images, labels = digits[0][:100], digits[1][:100]
    attack = BIM(eps=EPS, steps=5)
    report = quiet(transformed, (images, labels), {"bim": attack})

    def stands(made_on):
        return classify(transformed, attack(made_on, images, labels)) == labels

    clean = classify(transformed, images) == labels
    second = with_manifold_transform(
        static, transformed.discriminator, "imt", eps=0.05, gradient="second_order"
    )
    ends = clean & stands(transformed)
    outcomes = report.outcomes
    np.testing.assert_array_equal(outcomes["bim grey_box"].correct, clean & stands(static))
    np.testing.assert_array_equal(outcomes["bim"].stages["direct"].standing, ends)
    np.testing.assert_array_equal(outcomes["bim"].correct, ends & stands(second))
    worst = outcomes["bim"].correct & outcomes["bim grey_box"].correct
    assert report.worst_case == pytest.approx(100 * worst.mean())
    assert report.worst_case < outcomes["bim grey_box"].accuracy < outcomes["clean"].accuracy


def test_the_stages_of_a_sequence_go_every_way_and_searches_come_last(transformed):
    named = by_protocol({"clean": None, "autoattack": AutoAttack(eps=EPS)}, transformed)
    assert list(named) == ["clean", "autoattack", "autoattack grey_box"]
    white = ["apgd-ce", "apgd-t", "fab-t"]
    assert list(named["autoattack"].stages) == [*white, *(f"{name} second_order" for name in white), "square"]
    assert settings(named["autoattack"])["ways"] == ["second_order"]
    assert settings(named["autoattack grey_box"])["way"] == "static"
    assert asked_for(named) == ["autoattack"]


def test_searches_in_bfloat16_go_every_way(transformed, digits):
    fast = AutoAttack(eps=EPS, version="fast")
    named = by_protocol({"clean": None, "fast": fast}, transformed)
    assert list(named) == ["clean", "fast", "fast grey_box"]
    assert list(named["fast"].stages) == [
        "apgd-ce",
        "apgd-t",
        "apgd-ce second_order",
        "apgd-t second_order",
        "square",
    ]
    images, labels = digits[0][:6], digits[1][:6]
    searched = BIM(eps=EPS, steps=2, search_dtype="bfloat16")
    report = quiet(transformed, (images, labels), {"bim": searched})
    assert list(report.outcomes) == ["clean", "bim", "bim grey_box"]


def test_searches_nearest_images_and_plain_classifiers_are_attacked_as_ever(static, transformed):
    named = {"clean": None, "square": Square(eps=EPS, queries=5), "ddn": DDN(steps=3)}
    assert by_protocol(named, transformed) == named
    named = {"clean": None, "bim": BIM(eps=EPS, steps=5)}
    assert by_protocol(named, static) == named


@pytest.mark.parametrize("attack", [RayS(queries=20), DDN(steps=3), Square(eps=EPS, queries=5)])
def test_any_attack_can_be_made_on_another_model(attack, static, transformed, digits):
    images, labels = digits[0][:5], digits[1][:5]
    made = MadeOn.of(attack, "static")
    assert (made.black_box, made.minimal, made.norm) == (attack.black_box, attack.minimal, attack.norm)
    found = made(transformed, images, labels, seed=1)
    np.testing.assert_array_equal(found, attack(static, images, labels, seed=1))


def test_the_name_of_what_comes_with_an_attack_is_taken(transformed):
    named = {"a": BIM(eps=EPS), "a grey_box": BIM(eps=EPS)}
    with pytest.raises(InputError, match="'a grey_box' is what comes with 'a'"):
        by_protocol(named, transformed)


def test_variants_of_one_classifier_are_not_taken_for_each_other(transformed, digits, tmp_path):
    def evaluated(wrapper, resume):
        object.__setattr__(transformed, "wrapper", wrapper)
        few = digits[0][:5], digits[1][:5]
        kept = {"directory": tmp_path, "resume": resume}
        return quiet(transformed, few, {"bim": BIM(eps=EPS, steps=1)}, **kept)

    first = evaluated({"name": "manifold_transform", "mode": "imt"}, False)
    assert first.digests["wrapper"] == '{"mode": "imt", "name": "manifold_transform"}'
    with pytest.raises(InputError, match="other terms: wrapper"):
        evaluated({"name": "manifold_transform", "mode": "imt+"}, True)


def test_a_transfer_is_white_box_on_its_diagonal(static, transformed, digits):
    images, labels = digits[0][:100], digits[1][:100]
    attack = BIM(eps=EPS, steps=5)
    models = {"static": static, "transformed": transformed}
    matrix = evaluation.transfer(models, (images, labels), attack, eps=EPS, progress=False)
    report = quiet(transformed, (images, labels), {"bim": attack})
    accuracy = matrix.to_dict()["accuracy"]
    assert accuracy["transformed"]["transformed"] == pytest.approx(report.accuracy["bim"])
    assert accuracy["static"]["transformed"] == pytest.approx(report.accuracy["bim grey_box"])
