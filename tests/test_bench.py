"""The benchmarks run on a tiny model; what they measure is for a quiet machine, not for a test."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import bench
import bench_autoattack
import bench_training
import measuring

from keras_robust import models

TIMED = {"attack", "step", "training", "adr", "mat", "atld", "precision", "libraries"}


@pytest.fixture(autouse=True)
def broken(monkeypatch):
    """AutoAttack meets a model on which everything falls in its first stage."""

    def subject(names, examples, batch):
        model = models.build("small_cnn")
        images = np.random.default_rng(0).random((examples, 8, 8, 1), dtype=np.float32)
        labels = np.argmax(model(images), axis=1).astype("int32")
        return bench_autoattack.Subject("random", model, images, labels, 0.9, "linf", batch)

    monkeypatch.setattr(bench_autoattack, "trained", subject)
    monkeypatch.setattr(bench_autoattack, "threads", lambda: 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.SECTIONS)
def test_every_section_yields_finite_values(name, tmp_path):
    path = tmp_path / "bench.json"
    options = [
        "-m",
        "small_cnn",
        "--batch",
        "4",
        "--repeats",
        "2",
        "--seeds",
        "1",
        "--examples",
        "8",
        "--json",
        str(path),
    ]
    result = CliRunner().invoke(bench.main, [name, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert report["setting"]["models"] == ["small_cnn"]
    assert report["rows"]
    for row in report["rows"]:
        assert row["section"] == name
        if row["value"] is None:
            assert "not installed" in row["detail"] and row["passed"] is None
            continue
        assert math.isfinite(row["value"]) and row["value"] >= 0
        if name in TIMED:
            assert 0 < row["low"] <= row["high"]


def test_unfused_is_without_the_fused_operation():
    def operations(model):
        graph = tf.function(model).get_concrete_function(tf.zeros((1, 32, 32, 3)), training=True).graph
        return {operation.type for operation in graph.get_operations()}

    assert "FusedBatchNormV3" not in operations(bench_training.unfused("wrn_16_2"))
    assert "FusedBatchNormV3" in operations(measuring.build_model("wrn_16_2"))


def test_runs_take_turns_in_alternating_order():
    calls = []
    times = measuring.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_that_of_the_fastest_rounds():
    found = measuring.ratio(np.array([0.4, 0.2, 0.6]), np.array([0.1, 0.2, 0.2]))
    assert found["value"] == pytest.approx(2)
    assert (found["low"], found["high"]) == pytest.approx((1, 4))


@pytest.mark.parametrize(
    ("sign", "limit", "value", "passed"),
    [("<=", 1.1, 1.1, True), ("<=", 1.1, 1.2, False), (">=", 3, 3.5, True), (">=", 3, 2.9, False)],
)
def test_a_row_is_judged_by_its_target(sign, limit, value, passed):
    assert measuring.Row("s", "m", "x", value, measuring.Target(sign, limit)).passed is passed


def test_a_row_without_value_is_not_judged():
    assert measuring.Row("s", "m", "x", None, measuring.Target("<=", 1)).passed is None
