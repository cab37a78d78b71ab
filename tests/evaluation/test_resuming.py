"""An evaluation that was killed goes on where it was and ends with the same report."""

from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest
from reports import without_seconds

from keras_robust.attacks import DDN, PGD, Adaptive, Attack, Square
from keras_robust.attacks.sequence import Sequence
from keras_robust.errors import InputError
from keras_robust.evaluation import evaluate
from keras_robust.evaluation.ledger import LEDGER
from keras_robust.evaluation.masked import quantized
from keras_robust.models import build, with_self_ensemble

EPS = 0.1
ATTACKS = {"pgd": PGD(eps=EPS, steps=2), "square": Square(eps=EPS, queries=10)}


@pytest.fixture
def few(digits):
    images, labels = digits
    return images[:100], labels[:100]


def run(model, few, attacks=ATTACKS, **options):
    settings = {"eps": EPS, "batch_size": 16, "seed": 4, "checks": False, "progress": False}
    return evaluate(model, few, attacks, **{**settings, **options})


@dataclass(frozen=True, kw_only=True)
class Dying(Attack):
    """Passes on to PGD, and stops the process's work at its third call."""

    calls: ClassVar[list] = []
    lives: ClassVar[int] = 3

    def run(self, model, images, labels, targets=None, *, key):
        if len(self.calls) == self.lives:
            raise KeyboardInterrupt
        self.calls.append(key)
        return PGD(eps=self.eps, steps=2).run(model, images, labels, key=key)


def test_what_was_found_is_not_done_again_and_the_end_is_the_same(digits_classifier, few, tmp_path):
    Dying.calls.clear()
    Dying.lives = 3
    attacks = {"ddn": DDN(steps=5), "pgd": Dying(eps=EPS), "square": ATTACKS["square"]}
    with pytest.raises(KeyboardInterrupt):
        run(digits_classifier, few, attacks, directory=tmp_path)
    Dying.lives = 100
    resumed = run(digits_classifier, few, attacks, directory=tmp_path, resume=True)
    assert sorted(Dying.calls) == [(4, block) for block in range(7)], "every block once, the lost one again"
    whole = run(digits_classifier, few, attacks)
    assert not np.isnan(whole.outcomes["ddn"].distances["l2"]).all()
    assert without_seconds(resumed) == without_seconds(whole)
    again = run(digits_classifier, few, attacks, directory=tmp_path, resume=True)
    assert again.to_dict() == resumed.to_dict(), "nothing is left to do, seconds included"
    expected = run(digits_classifier, few)
    np.testing.assert_array_equal(whole.outcomes["pgd"].correct, expected.outcomes["pgd"].correct)


@dataclass(frozen=True, kw_only=True)
class Staged(Sequence):
    """Two stages, the second of which dies."""

    @property
    def stages(self):
        return {"first": PGD(eps=self.eps, steps=1), "second": Dying(eps=self.eps)}


@pytest.mark.parametrize(
    "make", [lambda model: model, lambda model: with_self_ensemble(model, first=0.2, passes=2)]
)
def test_a_stage_that_was_ended_is_not_made_again(digits_classifier, few, tmp_path, make):
    """Nor does it matter to a model that draws."""
    model, attacks = make(digits_classifier), {"staged": Staged(eps=EPS)}
    Dying.calls.clear()
    Dying.lives = 2
    with pytest.raises(KeyboardInterrupt):
        run(model, few, attacks, directory=tmp_path)
    lines = (tmp_path / LEDGER).read_bytes()
    assert lines.count(b'"first"') == 5 and lines.count(b'"second"') == 2, "the third block is begun"
    Dying.lives = 100
    resumed = run(model, few, attacks, directory=tmp_path, resume=True)
    firsts = [line for line in (tmp_path / LEDGER).read_bytes().splitlines() if b'"first"' in line]
    assert sum(b'"second"' not in line for line in firsts) == 7, "every block once"
    assert without_seconds(resumed) == without_seconds(run(model, few, attacks))


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_torn_by_a_kill_is_dropped(digits_classifier, few, tmp_path, cut):
    whole = run(digits_classifier, few, directory=tmp_path)
    path = tmp_path / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10]) + lines[10][:-cut])
    resumed = run(digits_classifier, few, directory=tmp_path, resume=True)
    assert without_seconds(resumed) == without_seconds(whole)
    assert len(path.read_bytes().splitlines()) == len(lines)


def test_resuming_nothing_begins(digits_classifier, few, tmp_path):
    begun = run(digits_classifier, few, directory=tmp_path / "new", resume=True)
    assert without_seconds(begun) == without_seconds(run(digits_classifier, few))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 5}, "seed: 4, now 5"),
        ({"batch_size": 32}, "batch_size: 16, now 32"),
        ({"eps": 0.05}, "threat: "),
        ({"shard": "1/2"}, "shard: '', now '1/2'"),
        ({"attacks": {**ATTACKS, "pgd": PGD(eps=EPS, steps=3)}}, "attacks: "),
        ({"attacks": {**ATTACKS, "pgd": PGD(eps=EPS, steps=2, start=None)}}, "attacks: "),
        ({"examples": 50}, "data: "),
    ],
)
def test_another_evaluation_is_not_gone_on_with(digits_classifier, few, tmp_path, change, words):
    run(digits_classifier, few, directory=tmp_path)
    before = (tmp_path / LEDGER).read_bytes()
    attacks = change.pop("attacks", ATTACKS) if "attacks" in change else ATTACKS
    with pytest.raises(InputError, match="begun with other terms: .*" + words):
        run(digits_classifier, few, attacks, directory=tmp_path, resume=True, **change)
    assert (tmp_path / LEDGER).read_bytes() == before


def test_other_weights_are_noticed(digits_classifier, few, tmp_path):
    run(digits_classifier, few, directory=tmp_path)
    other = keras.models.clone_model(digits_classifier)
    object.__setattr__(other, "name", digits_classifier.name)
    with pytest.raises(InputError, match="weights: "):
        run(other, few, directory=tmp_path, resume=True)


def test_the_same_model_under_another_name_is_gone_on_with(digits_classifier, few, tmp_path):
    run(digits_classifier, few, directory=tmp_path)
    other = keras.models.clone_model(digits_classifier)
    other.set_weights(digits_classifier.get_weights())
    object.__setattr__(other, "name", "renamed")
    report = run(other, few, directory=tmp_path, resume=True)
    assert report.model == "renamed"


def test_another_wrapper_of_the_same_weights_is_noticed(digits_classifier, few, tmp_path):
    quiet, loud = (with_self_ensemble(digits_classifier, first=first, passes=2) for first in (0.01, 5.0))
    run(quiet, few, directory=tmp_path)
    with pytest.raises(InputError, match="wrapper: "):
        run(loud, few, directory=tmp_path, resume=True)


def test_an_evaluation_is_not_written_over(digits_classifier, few, tmp_path):
    run(digits_classifier, few, directory=tmp_path)
    with pytest.raises(InputError, match="holds an evaluation"):
        run(digits_classifier, few, directory=tmp_path)


@pytest.mark.parametrize("text", ["<!DOCTYPE html>\n", "[]\n", '{"seed": 1}\n{"attack": 3}\n', ""])
def test_a_file_that_is_no_evaluation_is_told(digits_classifier, few, tmp_path, text):
    (tmp_path / LEDGER).write_text(text)
    with pytest.raises(InputError, match=r"evaluation\.jsonl is not an evaluation that can be resumed"):
        run(digits_classifier, few, directory=tmp_path, resume=True)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=EPS, steps=2, loss=lambda labels, logits: logits[:, 0]),
        Adaptive(eps=EPS, objectives=[keras.losses.SparseCategoricalCrossentropy(reduction=None)]),
    ],
)
def test_what_an_attack_on_a_function_finds_is_not_kept(digits_classifier, few, tmp_path, attack):
    with pytest.raises(InputError, match=r"mine climbs .*, which has no name that tells it"):
        run(digits_classifier, few, {"mine": attack}, directory=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    run(digits_classifier, few, {"mine": attack})


def test_models_that_share_their_weights_are_not_taken_for_each_other(few, tmp_path):
    classifier = build("small_cnn", filters=2, hidden=4)

    def rounding_to(levels):
        keras.backend.clear_session()  # the names are those that another process would give
        return quantized(classifier, levels=levels)

    whole = run(rounding_to(2), few, directory=tmp_path)
    with pytest.raises(InputError, match="begun with other terms: layers"):
        run(rounding_to(8), few, directory=tmp_path, resume=True)
    again = run(rounding_to(2), few, directory=tmp_path, resume=True)
    assert again.to_dict() == whole.to_dict()
