"""What Keras 3.15 lacks to train under tf.distribute, in one place; inert on a single device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_robust.workers import Workers


class DistributedModel(keras.Model):
    """A built model of images whose `fit` works under every distribution strategy."""

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **options: Any,
    ) -> keras.callbacks.History:
        given = tf.nest.flatten(getattr(callbacks, "callbacks", callbacks))
        backups = [one for one in given if isinstance(one, keras.callbacks.BackupAndRestore)]
        workers = Workers(self.distribute_strategy if backups else None)
        for backup in backups:
            _write_on_chief(backup, workers)
        history = super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)
        workers.wait()  # the chief may still write
        return history

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras reduces a batch of the data to one tensor, which fails across workers, and taking it begins a
        # pass over the data. The batch only builds the metrics, so a symbolic one will do.
        images = keras.KerasTensor(self.input_shape, "float32")
        super()._maybe_symbolic_build(data_batch=(images, keras.KerasTensor((None,), "int32")))

    def _make_function(self, step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        # Across workers Keras takes the mean of each log over an axis 0, which scalars do not have.
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return super()._make_function(step_function)
        names: list[str] = []

        def step(data: Any) -> Any:
            logs = step_function(data)
            names[:] = logs
            return ops.stack([ops.cast(value, "float32") for value in logs.values()])[None]

        function = super()._make_function(step)
        return lambda iterator: dict(zip(names, tf.unstack(function(iterator)), strict=True))


def _write_on_chief(callback: keras.callbacks.BackupAndRestore, workers: Workers) -> None:
    """Let the chief alone back up: Keras would write the same files from every worker."""
    kept = Path(callback._training_metadata_path)
    workers.agree("the backup that they see", kept.read_text(encoding="utf-8") if kept.exists() else "none")
    if not workers.is_chief:
        callback._save_model = callback.on_train_end = lambda logs=None: None


def place_in_batch() -> tuple[Any, int]:
    """Which part of the global batch this replica is given, and of how many."""
    replica = tf.distribute.get_replica_context()
    count = replica.num_replicas_in_sync
    workers = getattr(replica.strategy.extended, "_num_workers", 1)
    return place(replica.replica_id_in_sync_group, count, workers), count


def place(replica: Any, count: int, workers: int) -> Any:
    """The part of the batch that a replica is given, of `count` on so many workers."""
    # tf.data hands the parts out to the workers in turn, while replicas are counted worker by worker.
    devices = count // workers
    return replica % devices * workers + replica // devices
