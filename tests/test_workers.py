"""Runs of several workers, as real processes on 127.0.0.1; what can go wrong between them is told."""

import json
import os
import shutil
import signal
import socket
import time
from functools import partial
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tensorflow as tf
import worker_runs
from reports import without_seconds
from small_runs import FINISHED, SMALL, STEPS, finished_run, small_recipe
from worker_processes import endings, free_addresses

import keras_robust as kr
from keras_robust import training, workers
from keras_robust.errors import InputError, require
from keras_robust.evaluation import run
from keras_robust.evaluation.shards import Shard
from keras_robust.workers import Cluster

LOST_TIMEOUT = 10
JOIN_TIMEOUT = 3  # where one is missing
STATED = LOST_TIMEOUT + 60  # seconds, with the load of a busy machine


# A run


def command(directory, *options):
    settings = [part for setting in SMALL + FINISHED for part in ("--set", setting)]
    where = ["--strategy", "multiworker", "--lost-timeout", LOST_TIMEOUT, "--out", directory]
    return ["train", "at_digits", "--profile", "smoke", *settings, *where, *options]


def taken(checkpoint):
    """Steps that a checkpoint has taken."""
    with h5py.File(checkpoint) as file:
        return int(file["vars/0"][()])


@pytest.mark.slow
def test_a_run_survives_a_lost_worker_and_a_chief_that_is_killed_while_it_writes(start, tmp_path):
    directory = tmp_path / "run"
    begin, go_on = command(directory), command(directory, "--resume")

    in_second_epoch = STEPS + 2
    chief, worker = start((worker_runs.krobust, *begin), (worker_runs.killed_after, in_second_epoch, *begin))
    assert worker.end()[0] == -signal.SIGKILL
    code, output = chief.end(STATED)
    assert code == 1 and "worker 0 (127.0.0.1:" in output, output
    assert f"stops: {worker.name} is gone. Go on, on all hosts, with: krobust train" in output
    assert taken(directory / training.CHECKPOINT) == STEPS

    chief, worker = start((worker_runs.killed_while_writing, *go_on), (worker_runs.krobust, *go_on))
    assert chief.end()[0] == -signal.SIGKILL
    code, output = worker.end(STATED)
    assert code == 1 and f"stops: {chief.name} is gone." in output, output
    assert taken(directory / training.CHECKPOINT) == STEPS, "the half-written one is not in its place"

    alone = shutil.copytree(directory, tmp_path / "alone")
    training.train(small_recipe(*FINISHED), alone, resume=True, verbose=0)
    assert_like_one_device(alone)

    codes, outputs = endings(start(*[(worker_runs.krobust, *go_on)] * 2))
    assert codes == (0, 0), outputs
    assert all("Trained." in output for output in outputs)
    assert "Epoch 2/2" in outputs[0] and "Epoch" not in outputs[1], "the chief shows the progress"
    assert taken(directory / training.CHECKPOINT) == 2 * STEPS
    assert_like_one_device(directory)


def assert_like_one_device(directory):
    expected = finished_run()
    assert {path.name for path in directory.iterdir() if path.is_file()} == set(os.listdir(expected))
    for name in (training.CHECKPOINT, training.BEST):
        assert_same_weights(directory / name, expected / name)
    for row, one in zip(training.history(directory), training.history(expected), strict=True):
        assert row["loss"] == pytest.approx(one["loss"], abs=1e-3)
        assert row.keys() == one.keys()


def assert_same_weights(path, expected):
    with h5py.File(path) as found, h5py.File(expected) as one:

        def compare(key, item):
            if isinstance(item, h5py.Dataset):
                np.testing.assert_allclose(found[key][()], item[()], rtol=0, atol=1e-3, err_msg=key)

        one.visititems(compare)


def test_fit_writes_one_log_and_validates_like_one_process(start, tmp_path):
    codes, outputs = endings(start(*[(worker_runs.fit_together, tmp_path / "two")] * 2))
    assert codes == (0, 0), outputs
    worker_runs.fit(tf.distribute.get_strategy(), tmp_path / "one")
    (row,), (one,) = (training.history(tmp_path / name) for name in ("two", "one"))
    assert row.keys() == one.keys() and {"val_loss", "val_adversarial_accuracy"} <= row.keys()
    for key in row.keys() - {"seconds"}:
        assert row[key] == pytest.approx(one[key], abs=1e-3), key


def test_a_backup_of_keras_is_written_once_and_restored_by_all(start, tmp_path):
    codes, outputs = endings(start(*[(worker_runs.backed_up, tmp_path)] * 2))
    assert codes == (0, 0), outputs
    assert [path.name for path in tmp_path.iterdir()] == [training.CHECKPOINT], "the backup is cleared away"
    recipe = small_recipe(*FINISHED, name="standard_digits")
    one = recipe.build()
    one.fit(recipe.data()[0], epochs=2, shuffle=False, verbose=0)
    one.save_weights(tmp_path / "one.weights.h5")
    assert_same_weights(tmp_path / training.CHECKPOINT, tmp_path / "one.weights.h5")


# An evaluation

EVALUATION = ("--attack", "pgd-3", "--attack", "square-20", "--examples", 150, "--batch", 32)


@pytest.mark.slow
def test_workers_evaluate_what_one_process_evaluates_though_one_was_lost(start, tmp_path):
    given = ["evaluate", "at_digits", *EVALUATION, "--strategy", "multiworker", "--out", tmp_path]
    given += ["--lost-timeout", LOST_TIMEOUT]
    chief, worker = start((worker_runs.krobust, *given), (worker_runs.killed_while_attacking, *given))
    assert worker.end()[0] == -signal.SIGKILL
    code, output = chief.end(STATED)
    assert code == 1 and f"stops: {worker.name} is gone." in output, output
    assert f"go on on all hosts with --out {tmp_path} --resume." in output

    codes, outputs = endings(start(*[(worker_runs.krobust, *given, "--resume")] * 2))
    assert codes == (0, 0), outputs
    assert "worst case" in outputs[0] and "worst case" not in outputs[1], "the chief says what was found"
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "shard-1-of-2", "shard-2-of-2"}
    one = kr.evaluate(
        kr.zoo.load("at_digits"),
        "digits",
        ["pgd-3", "square-20"],
        examples=150,
        batch_size=32,
        progress=False,
    )
    two = kr.evaluation.Report.from_json(tmp_path / "report.json")
    assert without_seconds(two) == without_seconds(one)


@pytest.mark.parametrize("begun", ["evaluation.jsonl", "shard-1-of-3"])
def test_an_evaluation_that_others_began_is_not_gone_on_with(tmp_path, begun):
    (tmp_path / "shard-2-of-2").mkdir()
    second = SimpleNamespace(count=2, index=1, together=lambda work: work())
    assert run._own(second, None, tmp_path) == (Shard(2, 2), tmp_path / "shard-2-of-2")
    (tmp_path / begun).touch()
    with pytest.raises(InputError, match=f"not 2 workers began: {begun}"):
        run._own(second, None, tmp_path)


def test_what_is_wrong_on_one_worker_ends_the_evaluation_of_all(start):
    right = ["evaluate", "at_digits", "--examples", 40, "--batch", 20, "--strategy", "multiworker"]
    wrong = [*right, "--attack", "pdg-40"]
    codes, outputs = endings(start((worker_runs.krobust, *right), (worker_runs.krobust, *wrong)))
    assert codes == (2, 2), outputs
    assert all("worker 1 (127.0.0.1:" in output and "mean 'pgd-40'" in output for output in outputs)


# What can be wrong between workers


def test_differing_recipes_are_told_to_all(start, tmp_path):
    given = command(tmp_path / "run"), command(tmp_path / "run", "--set", "epochs=3")
    codes, outputs = endings(start(*[(worker_runs.krobust, *arguments) for arguments in given]))
    assert codes == (2, 2), outputs
    for output in outputs:
        assert "worker 1 (127.0.0.1:" in output
        assert "was begun with another recipe: epochs: 2, now 3." in output


def test_a_directory_that_is_not_shared_is_told(start, tmp_path):
    given = [command(tmp_path / name) for name in ("one", "other")]
    codes, outputs = endings(start(*[(worker_runs.krobust, *arguments) for arguments in given]))
    assert codes == (2, 2), outputs
    assert all("other; it must be a shared directory" in output for output in outputs)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("index", [0, 1])
def test_a_missing_worker_is_told_in_time(start, tmp_path, index):
    works = [None, None]
    works[index] = (worker_runs.krobust, *command(tmp_path / "run", "--join-timeout", JOIN_TIMEOUT))
    (worker,) = start(*works)
    code, output = worker.end(JOIN_TIMEOUT + 60)
    assert code == 2 and f"{worker.name} waited {JOIN_TIMEOUT} s in vain for" in output, output
    assert output.rstrip().endswith("Start all workers of TF_CONFIG, or wait longer (--join-timeout).")


def test_a_port_in_use_is_told_at_once(start, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}", *free_addresses(1)]
        (worker,) = start((worker_runs.krobust, *command(tmp_path / "run")), None, addresses=addresses)
        code, output = worker.end()
    assert code == 2 and f"Cannot listen at {addresses[0]}: its port is in use" in output, output


def test_a_worker_ends_at_sigterm(start):
    (worker,) = start((worker_runs.idle,))
    while "idle" not in worker.output and worker.process.is_alive():
        time.sleep(0.1)
    worker.process.terminate()
    assert worker.end()[0] == -signal.SIGTERM, worker.output


HOSTS = {"worker": ["a:1", "b:2"]}


def in_config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", r'TF_CONFIG must be like \{"cluster"'),
        ("[1]", "TF_CONFIG must be like"),
        ('{"cluster": {}}', "TF_CONFIG must be like"),
        (in_config(HOSTS | {"ps": ["c:3"]}), "jobs are chief and worker. Received: ps"),
        (in_config(HOSTS, index=2), "the task worker 2 is not in the cluster"),
        (in_config({"worker": ["a:1", "a:1"]}), "each worker needs a host:port of its own"),
        (in_config({"worker": ["a", "b:2"]}), "each worker needs a host:port of its own"),
    ],
)
def test_a_bad_cluster_is_told(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=message):
        workers.strategy("multiworker")


def test_the_chief_comes_first(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", in_config({"worker": ["a:1", "b:2"], "chief": ["c:3"]}, index=1))
    cluster = Cluster.read()
    assert [cluster.named(i) for i in range(3)] == ["chief 0 (c:3)", "worker 0 (a:1)", "worker 1 (b:2)"]
    assert cluster.index == 2


def test_a_strategy_after_the_devices_are_in_use_is_told(monkeypatch):
    tf.constant(0)
    monkeypatch.setenv("TF_CONFIG", in_config(HOSTS))
    with pytest.raises(InputError, match='Make the strategy "multiworker" before anything else'):
        workers.strategy("multiworker")


def test_a_tpu_needs_a_name(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(InputError, match="name one in the environment variable TPU_NAME"):
        workers.strategy("tpu")


@pytest.mark.parametrize("timeouts", [{"join_timeout": 0}, {"lost_timeout": float("nan")}])
def test_a_bad_timeout_is_told(timeouts):
    with pytest.raises(InputError, match="must be >= 1 second"):
        workers.strategy("single", **timeouts)


def test_alone_there_is_nobody_to_ask():
    alone = workers.Workers(workers.strategy("single"))
    assert alone.is_chief and alone.exchange("text") == ["text"]
    assert alone.on_chief(lambda: 3) == alone.together(lambda: 3) == 3
    with pytest.raises(InputError, match=r"^plain$"):
        alone.together(partial(require, False, "plain"))
