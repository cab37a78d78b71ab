"""Blocks on the devices of a strategy: the same report, made side by side."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from keras_robust import workers
from keras_robust.evaluation.placement import Replica, on_replicas, replicas

HERE = Path(__file__).parent


def test_two_devices_report_what_one_reports():
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(HERE / "mirrored_evaluation.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["one"]["report"] == made["two"]["report"]
    assert [len(made[key]["devices"]) for key in ("one", "two")] == [1, 2]


def test_places_work_side_by_side_and_each_on_one_block_at_a_time():
    meeting = threading.Barrier(2, timeout=10)  # passes only if both are at work

    def work(model, block):
        meeting.wait()
        return model, block

    places = [Replica("a"), Replica("b")]
    done = dict(on_replicas(work, range(4), places))
    assert set(done) == {0, 1, 2, 3} and {model for model, _ in done.values()} == {"a", "b"}


def test_one_device_takes_the_model_itself(digits_classifier):
    assert replicas(digits_classifier, workers.strategy("single")) == [Replica(digits_classifier)]


def test_a_strategy_whose_scope_is_open_has_its_copies(digits_classifier):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        (place,) = replicas(digits_classifier, strategy)
    assert place.model is not digits_classifier and "CPU:0" in place.device


def test_what_goes_wrong_on_a_device_is_told():
    def work(model, block):
        raise ValueError(f"block {block}")

    with pytest.raises(ValueError, match="block"):
        list(on_replicas(work, range(4), [Replica("a"), Replica("b")]))
