"""Two processes on 127.0.0.1 take the steps that one takes on the same global batches."""

import json

import numpy as np
import pytest
import tensorflow as tf
import worker_steps
from defense_building import EVERY_IF_WHOLE, of_each_kind
from worker_processes import endings

from keras_robust.defenses import distributed


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory, pytestconfig):
    """What each of two workers made of the defenses."""
    names = [*of_each_kind(pytestconfig.getoption("whole")), *worker_steps.FURTHER]
    paths = [tmp_path_factory.mktemp("trained") / "result.json" for _ in range(2)]
    codes, outputs = endings(start(*[(worker_steps.train_all, path, names) for path in paths]))
    assert codes == (0, 0), outputs
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.parametrize("name", [*EVERY_IF_WHOLE, *worker_steps.FURTHER])
def test_two_workers_take_the_steps_of_one_process(trained, name):
    first, second = (results[name] for results in trained)
    one = worker_steps.train(worker_steps.MADE[name], tf.distribute.get_strategy())
    assert first["logs"].keys() == one["logs"].keys() and {"loss", "accuracy"} <= one["logs"].keys()
    for key, value in one["logs"].items():
        assert first["logs"][key] == pytest.approx(value, abs=1e-4), key
    assert first == second, "to the bit"
    moved = 0.0
    for start, expected, found in zip(one["start"], one["weights"], first["weights"], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        if np.ndim(start):
            moved = max(moved, np.abs(np.subtract(start, expected)).max())
    assert moved > 1e-3, "or the test could not fail"


@pytest.mark.parametrize(("hosts", "devices"), [(1, 3), (3, 1), (2, 2), (4, 2)])
def test_a_replica_knows_which_part_of_the_batch_it_is_given(hosts, devices):
    """Against what tf.data hands out, without the devices."""
    from tensorflow.python.data.experimental.ops.distribute import batch_sizes_for_worker
    from tensorflow.python.distribute.input_ops import auto_shard_dataset

    count = hosts * devices
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    parts = tf.data.Dataset.range(2 * count).batch(count, drop_remainder=True).with_options(options)
    for host in range(hosts):
        sizes = batch_sizes_for_worker(count, hosts, devices, host)
        given = [int(part[0]) for part in auto_shard_dataset(parts.rebatch(sizes), hosts, host, count)]
        for device in range(devices):
            place = distributed.place(host * devices + device, count, hosts)
            assert given[device::devices] == [place, count + place]
