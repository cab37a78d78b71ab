"""The benchmark's section on memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from measuring import (
    Row,
    Setting,
    Target,
    build_model,
    pgd,
    random_batch,
    section,
)

from keras_robust.cli.output import import_tensorflow


@section
def memory(setting: Setting) -> Iterator[Row]:
    """Peak memory with ten times the steps, or sixteen times the examples, over that without."""
    for name in setting.models:
        longer = [_in_new_process(_peak_of_attack, name, setting.batch, steps) for steps in (10, 100)]
        larger = [_in_new_process(_peak_of_evaluation, name, setting.batch, count) for count in (1, 16)]
        for measure, (few, many) in {
            "PGD-100 / PGD-10 peak memory": longer,
            "evaluation of 16 batches / of 1, peak memory": larger,
        }.items():
            ratio, detail = many / few, f"{many:.0f} / {few:.0f} MiB"
            yield Row("memory", name, measure, ratio, Target("<=", 1.05), detail=detail)


def _in_new_process(function: Callable[..., float], *arguments: Any) -> float:
    # From a server that was small when it was started: on Linux the peak of a spawned process starts
    # from the size of the process that spawned it.
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_of_attack(name: str, batch: int, steps: int) -> float:
    """Peak memory of a process after one attack."""
    import_tensorflow()
    pgd(steps)(build_model(name), *random_batch(name, batch), batch_size=batch)
    return _peak_memory()


def _peak_of_evaluation(name: str, batch: int, count: int) -> float:
    """Peak memory of a process after it has evaluated so many batches."""
    import_tensorflow()
    from keras_robust import attacks, evaluate

    model = build_model(name)
    images, _ = random_batch(name, batch * count)
    labels = attacks.classify(model, images).astype(np.int32)
    options = {"eps": 1 / 255, "batch_size": batch, "checks": False, "progress": False}
    evaluate(model, (images, labels), ["pgd-10", "square-20"], **options)
    return _peak_memory()


def _peak_memory() -> float:
    """That of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
