"""A report's arithmetic against NumPy, and its way through JSON."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console

from keras_robust.errors import InputError
from keras_robust.evaluation import Outcome, Report

NAMES = ("clean", "pgd-40", "square-100")


def report(correct, **changes):
    """A report of a table of booleans, one row an attack."""
    outcomes = {
        name: Outcome(row, {"eps": 0.1, "steps": 3}, name == "square-100", seconds=0.5)
        for name, row in zip(NAMES, correct, strict=False)
    }
    settings = {
        "threat": {"norm": "linf", "eps": 0.1},
        "indices": np.arange(correct.shape[1]) * 2,
        "flags": ["beware"],
        "model": "mine",
        "dataset": "digits",
        "seed": 3,
        "batch_size": 16,
        "versions": {"keras": "3"},
    }
    return Report(outcomes, **{**settings, **changes})


tables = hnp.arrays(bool, st.tuples(st.integers(2, 3), st.integers(1, 12)))  # clean and attacks


@given(tables)
def test_the_worst_case_is_taken_example_by_example(correct):
    found = report(correct)
    examples = correct.shape[1]
    assert found.examples == examples
    for row, name in zip(correct, NAMES, strict=False):
        assert found.accuracy[name] == pytest.approx(100 * np.count_nonzero(row) / examples)
    survivors = [all(column) for column in correct.T.tolist()]
    assert found.standing.tolist() == survivors
    assert found.worst_case == pytest.approx(100 * sum(survivors) / examples)
    assert found.worst_case <= min(found.accuracy.values()) + 1e-9


def test_the_worst_case_may_be_below_every_attack():
    found = report(np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]], bool))
    assert (found.accuracy["pgd-40"], found.accuracy["square-100"], found.worst_case) == (75, 75, 50)


@given(tables)
def test_a_report_survives_json(correct):
    found = report(correct)
    again = Report.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    assert again.indices.tolist() == found.indices.tolist() and again.threat == found.threat
    for name, outcome in found.outcomes.items():
        copy = again.outcomes[name]
        np.testing.assert_array_equal(copy.correct, outcome.correct)
        assert copy.correct.dtype == bool
        assert (copy.options, copy.black_box, copy.seconds) == (
            outcome.options,
            outcome.black_box,
            outcome.seconds,
        )


def test_a_report_states_what_repeats_it(tmp_path):
    found = report(np.array([[1, 0], [1, 0]], bool))
    path = found.to_json(tmp_path / "new" / "report.json")
    values = json.loads(path.read_text())
    assert values["accuracy"] == {"clean": 50.0, "pgd-40": 50.0} and values["worst_case"] == 50.0
    stated = ("model", "dataset", "seed", "batch_size", "examples", "indices", "flags")
    assert [values[key] for key in stated] == ["mine", "digits", 3, 16, 2, [0, 2], ["beware"]]
    assert values["outcomes"]["pgd-40"]["correct"] == "10"
    assert Report.from_json(path).to_dict() == found.to_dict()


@pytest.mark.parametrize("text", ["<!DOCTYPE html>", "[]", "{}", '{"outcomes": {"clean": {"correct": 3}}}'])
def test_a_file_that_is_no_report_is_told(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"report\.json is not a report"):
        Report.from_json(tmp_path / "report.json")


def test_a_missing_report_and_a_bad_place_are_told(tmp_path):
    with pytest.raises(InputError, match="is not a report"):
        Report.from_json(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        report(np.ones((1, 2), bool)).to_json(tmp_path / "file" / "report.json")


def test_the_table_shows_accuracies_and_only_settings_that_the_threat_does_not_say():
    correct = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]], bool)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report(correct).table())
    lines = console.export_text().splitlines()
    assert "mine on 4 examples of digits, linf eps 0.1" in lines[0]
    (row,) = (line for line in lines if "pgd-40" in line)
    assert "75.00" in row and "steps=3" in row and not re.search(r"\beps", row)
    assert any("worst case" in line and "50.00" in line for line in lines)


def test_brackets_in_a_name_are_printed():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report(np.ones((2, 2), bool), model="[red]").table())
    assert "[red] on 2 examples of digits" in console.export_text()
