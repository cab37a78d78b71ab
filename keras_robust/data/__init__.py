"""Datasets by name, and the input pipeline. Importing this does not import TensorFlow."""

from keras_robust.data import folder, tfds_sets, toy  # noqa: F401  (they register their datasets)
from keras_robust.data.arrays import Arrays, holdout, subset
from keras_robust.data.batching import batches, pipeline, steps_per_epoch
from keras_robust.data.specs import DatasetInfo, datasets, info, load

__all__ = [
    "Arrays",
    "DatasetInfo",
    "batches",
    "datasets",
    "holdout",
    "info",
    "load",
    "pipeline",
    "steps_per_epoch",
    "subset",
]
