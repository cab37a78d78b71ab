"""MirroredStrategy over two devices takes the step that one device takes on the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from defense_building import EVERY_IF_WHOLE, batch, every, of_each_kind

from keras_robust.defenses import defenses

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def report(pytestconfig):
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, str(HERE / "mirrored_step.py"), *of_each_kind(pytestconfig.getoption("whole"))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_replica_sees_its_slice_of_the_global_batch(report):
    images, _ = batch(17)
    assert report["replicas"] == 2
    assert len(report["slices"]) == 2, "the remainder is dropped"
    for step, parts in enumerate(report["slices"]):
        for replica, part in enumerate(parts):
            first = 8 * step + 4 * replica
            np.testing.assert_allclose(part, images[first : first + 4])


@pytest.mark.parametrize("name", [*EVERY_IF_WHOLE, "duel"])
def test_two_devices_take_the_step_of_one(report, name):
    one, two = report["defenses"][name]["one"], report["defenses"][name]["two"]
    for left, right in zip(one["start"], two["start"], strict=True):
        np.testing.assert_array_equal(left, right)
    assert one["logs"].keys() == two["logs"].keys()
    for key, value in one["logs"].items():
        assert two["logs"][key] == pytest.approx(value, abs=1e-4), key
    moved = 0.0
    for start, left, right in zip(one["start"], one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-4)
        moved = max(moved, np.abs(np.subtract(start, left)).max())
    assert moved > 1e-2, "or the test could not fail"
    for first, second in two["replicas"]:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", [every(name) for name in defenses if defenses[name].coupled_terms])
def test_coupled_terms_are_of_each_replicas_own_part(report, name):
    """Two devices with the same images each take the step that one device takes with them."""
    for one, two in zip(*report["coupled"][name], strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_two_devices_report_what_one_reports(report):
    one, two = report["evaluated"]
    assert {"loss", "accuracy", "adversarial_accuracy"} <= set(one)
    assert two == pytest.approx(one, abs=1e-5)
