"""The command killed with SIGKILL and called again ends with the report of one that was left alone."""

import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from reports import without_seconds

from keras_robust.cli import main
from keras_robust.evaluation import Report
from keras_robust.evaluation.ledger import LEDGER

COMMAND = ["evaluate", "at_digits", "--attack", "pgd-10", "--attack", "square-1000"]
SIZES = ["--examples", "60", "--batch", "20"]
LIMIT = 120  # seconds


def report(directory, *options):
    result = CliRunner().invoke(main, [*COMMAND, *SIZES, "--out", str(directory), *options])
    assert result.exit_code == 0, result.output
    (path,) = directory.glob("*.json")
    return without_seconds(Report.from_json(path))


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_the_same(tmp_path):
    killed, ledger = tmp_path / "killed", tmp_path / "killed" / LEDGER
    program = [sys.executable, "-c", "from keras_robust.cli import main; main()"]
    process = subprocess.Popen(
        [*program, *COMMAND, *SIZES, "--out", str(killed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + LIMIT
    while lines(ledger) < 5 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(killed.glob("*.json")), "it was killed before its end"
    kept = ledger.read_bytes().splitlines(keepends=True)
    assert len(kept) >= 5, "and after its beginning"
    assert report(killed, "--resume") == report(tmp_path / "whole")
    assert ledger.read_bytes().splitlines(keepends=True)[: len(kept) - 1] == kept[:-1], (
        "and goes on from there"
    )
