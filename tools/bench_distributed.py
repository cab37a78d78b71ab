"""Two workers against one: a section of bench.py. The workers are processes of this host."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from measuring import MODELS, Row, Run, Setting, build_model, ratio, section, turns

from keras_robust.cli.output import import_tensorflow

WORKERS = 2
EXCHANGES = 5  # in a timed round


@section
def distributed(setting: Setting) -> Iterator[Row]:
    """A step of PGD-10 adversarial training: two workers by themselves, then together."""
    for name in setting.models:
        seconds, size = _in_workers(name, setting.batch, setting.repeats)
        one, both, exchange = seconds["alone"], seconds["together"], seconds["exchange"]
        # The worker by itself has the other beside it, so that both rates are of a busy host.
        for workers, times in {1: one, WORKERS: both}.items():
            rate = workers * setting.batch / times
            yield Row(
                "distributed",
                name,
                f"examples/s, workers: {workers}",
                float(rate.max()),
                low=float(rate.min()),
                high=float(rate.max()),
                detail=f"{1000 * times.min():.0f} ms a step",
            )
        measure = f"examples/s, workers: {WORKERS} / 1"
        yield Row("distributed", name, measure, **ratio(WORKERS * one, both))
        share = ratio(100 * exchange, both)
        detail = f"{1000 * exchange.min():.1f} of {1000 * both.min():.0f} ms, {size / 2**20:.1f} MiB"
        yield Row("distributed", name, "sum of the gradients, % of a step", **{**share, "detail": detail})


def _in_workers(name: str, batch: int, repeats: int) -> tuple[dict[str, np.ndarray], int]:
    """What the chief of the workers measures."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(WORKERS)]
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("forkserver")) as pool:
        futures = [pool.submit(_measure, addresses, index, name, batch, repeats) for index in range(WORKERS)]
        return futures[0].result()


def _free_ports(count: int) -> list[int]:
    # All are held until the last is found, so that they differ.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _measure(
    addresses: list[str], index: int, name: str, batch: int, repeats: int
) -> tuple[dict[str, np.ndarray], int]:
    """Seconds of a step alone and together, and of an exchange; bytes of the gradients."""
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    import_tensorflow(search_devices=False)
    import tensorflow as tf

    from keras_robust import workers

    tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // WORKERS))
    strategy = workers.strategy("multiworker")
    together = workers.Workers(strategy)
    defense = _defense(name, strategy)
    runs: dict[str, Run] = {
        "together": _step(defense, strategy, name, WORKERS * batch),
        "exchange": _exchange(defense, strategy),
    }
    single = tf.distribute.get_strategy()
    runs["alone"] = _step(_defense(name, single), single, name, batch)
    seconds: dict[str, list[float]] = {what: [] for what in runs}
    for turn, what in turns(runs, 1 + repeats):
        together.wait()
        begin = time.perf_counter()
        runs[what]()
        if turn:
            seconds[what].append(time.perf_counter() - begin)
    times = {what: np.array(values) for what, values in seconds.items()}
    times["exchange"] = times["exchange"] / EXCHANGES
    size = sum(int(np.prod(variable.shape)) for variable in defense.trainable_variables)
    return times, 4 * size


def _defense(name: str, strategy: Any) -> Any:
    import keras

    from keras_robust import attacks, defenses

    with strategy.scope():
        defense = defenses.AdversarialTraining(build_model(name), attacks.PGD(eps=8 / 255, steps=10))
        defense.compile(optimizer=keras.optimizers.SGD(1e-4, momentum=0.9))
    return defense


def _step(defense: Any, strategy: Any, name: str, batch: int) -> Run:
    """A training step on the global batch, as `fit` takes it."""
    import tensorflow as tf

    images = tf.random.stateless_uniform((batch, *MODELS[name]["input_shape"]), (0, 0))
    labels = tf.zeros(batch, tf.int32)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    iterator = iter(strategy.experimental_distribute_dataset(data.with_options(options)))
    defense.make_train_function()
    return lambda: [value.numpy() for value in defense.train_function(iterator).values()]


def _exchange(defense: Any, strategy: Any) -> Run:
    """The sums over all workers of what has the shapes of the gradients."""
    import tensorflow as tf

    def sums() -> Any:
        gradients = [tf.ones(variable.shape) for variable in defense.trainable_variables]
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)

    @tf.function(autograph=False)
    def run() -> Any:
        return strategy.run(sums)

    return lambda: [run()[0].numpy() for _ in range(EXCHANGES)]
