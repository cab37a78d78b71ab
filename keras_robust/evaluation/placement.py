"""Blocks of examples on the devices of a distribution strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import keras
import tensorflow as tf

from keras_robust.models.rebuilding import rebuilt

Block = TypeVar("Block")
Result = TypeVar("Result")


class Replica(NamedTuple):
    """A model and the device that it lies on; None: wherever TensorFlow puts it."""

    model: keras.Model
    device: str | None = None

    def placed(self) -> Any:
        """A context in which operations run on the device."""
        return nullcontext() if self.device is None else tf.device(self.device)


def replicas(model: keras.Model, strategy: Any = None) -> list[Replica]:
    """A copy of `model` on each device of this host that `strategy` works on; None, no copy.

    Raises:
        InputError: the model's config does not rebuild it.
    """
    default = None if tf.distribute.has_strategy() else tf.distribute.get_strategy()  # that of one device
    if strategy in (None, default):
        return [Replica(model)]
    return [_copy(model, device) for device in strategy.extended.worker_devices]


def _copy(model: keras.Model, device: str) -> Replica:
    with tf.device(device):
        return Replica(rebuilt(model, lambda config: config, "on each device"), device)


def on_replicas(
    work: Callable[[keras.Model, Block], Result], blocks: Iterable[Block], places: list[Replica]
) -> Iterator[tuple[Block, Result]]:
    """`work(model, block)` for every block, side by side on `places`, as they are finished."""
    if len(places) == 1:
        for block in blocks:
            with places[0].placed():
                yield block, work(places[0].model, block)
        return
    free: SimpleQueue[Replica] = SimpleQueue()
    for place in places:
        free.put(place)

    def run(block: Block) -> tuple[Block, Result]:
        place = free.get()
        try:
            with place.placed():
                return block, work(place.model, block)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        futures = [pool.submit(run, block) for block in blocks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
