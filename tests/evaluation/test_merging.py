"""Shards are parts of one evaluation: merged they are the report of one process."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import without_seconds

from keras_robust.attacks import DDN, PGD, Square
from keras_robust.attacks.sequence import Sequence
from keras_robust.errors import InputError
from keras_robust.evaluation import Report, evaluate, merge
from keras_robust.evaluation.shards import Shard

EPS = 0.1


class Two(Sequence):
    @property
    def stages(self):
        return {"pgd": PGD(eps=self.eps, steps=2), "square": Square(eps=self.eps, queries=20)}


ATTACKS = {"pgd": PGD(eps=EPS, steps=2), "two": Two(eps=EPS), "ddn": DDN(steps=5)}


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9))
def test_shards_take_every_example_once(total, size, count):
    shards = Shard.of(count, total, size)
    rows = [shard.rows(total, size) for shard in shards]
    assert len(shards) == count or set(map(len, rows[:-1])) <= {size}, "only where there are fewer blocks"
    assert sorted(np.concatenate(rows).tolist()) == list(range(total))
    assert max(map(len, rows)) - min(map(len, rows)) <= size


@pytest.fixture(scope="module")
def reports(digits_classifier, digits):
    """The report of one process, and those of three shards."""

    def run(shard=None):
        images, labels = digits
        return evaluate(
            digits_classifier,
            (images[:300], labels[:300]),
            ATTACKS,
            eps=EPS,
            examples=110,
            seed=2,
            batch_size=16,
            shard=shard,
            progress=False,
        )

    return run(), [run(f"{number}/3") for number in (1, 2, 3)]


def test_merged_shards_are_the_report_of_one_process(reports, tmp_path):
    whole, shards = reports
    assert sum(shard.examples for shard in shards) == whole.examples == whole.total == 110
    paths = [shard.to_json(tmp_path / f"{number}.json") for number, shard in enumerate(shards)]
    merged = merge(Report.from_json(path) for path in (paths[2], paths[0], paths[1]))
    assert without_seconds(merged) == without_seconds(whole)
    assert whole.outcomes["two"].stages.keys() == {"pgd", "square"}
    assert merged.outcomes["pgd"].seconds == pytest.approx(sum(s.outcomes["pgd"].seconds for s in shards))


def test_shards_that_were_not_probed_are_merged_without_warnings(reports):
    whole, shards = reports
    silent = [replace(shard, flags=[], probes={}) for shard in shards]
    loud = replace(shards[0], probes={**whole.probes, "zero_gradients": 100.0})
    assert merge([loud, *shards[1:]]).flags and not merge(silent).flags


def test_a_single_report_is_merged_with_itself(reports):
    whole, _ = reports
    assert merge([whole]).to_dict() == whole.to_dict()


def test_shards_without_examples_are_not_missed(reports):
    whole, _ = reports
    assert merge([replace(whole, shard="1/3", batch_size=110)]).examples == 110
    with pytest.raises(InputError, match="Missing: 2/3"):
        merge([replace(whole, shard="1/3", batch_size=60)])


def test_what_does_not_belong_together_is_told(reports):
    whole, (first, second, third) = reports
    for given_, words in [
        ([], "no report"),
        ([first, third], "Missing: 2/3"),
        ([first, first, second, third], "each of the 3 shards once. Received: 1/3, 1/3, 2/3, 3/3"),
        ([first, second, whole], "each of the 3 shards once"),
        ([first, second, replace(third, seed=9)], "seed: 2 in shard 1/3, 9 in shard 3/3"),
        ([first, second, replace(third, outcomes={})], "not of the same attacks"),
    ]:
        with pytest.raises(InputError, match=words):
            merge(given_)
