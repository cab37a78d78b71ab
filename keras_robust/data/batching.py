"""`tf.data` input: shuffled and augmented for training, in order for evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from keras_robust.data.arrays import Arrays, check
from keras_robust.errors import require

if TYPE_CHECKING:
    import tensorflow as tf


def steps_per_epoch(arrays: Arrays, batch_size: int, drop_remainder: bool = True) -> int:
    """Number of batches that `pipeline` makes of one pass over the examples.

    Raises:
        InputError: a batch size below 1, or above the number of examples where the remainder is dropped.

    >>> from keras_robust import data
    >>> steps_per_epoch(data.load("digits", "test"), batch_size=100)
    3
    """
    size = len(arrays.labels)
    require(
        1 <= batch_size <= (size if drop_remainder else math.inf),
        f"batch_size must be at least 1, and at most the {size} examples where the remainder is dropped. "
        f"Received: {batch_size}.",
    )
    return size // batch_size if drop_remainder else math.ceil(size / batch_size)


def pipeline(
    arrays: Arrays,
    batch_size: int,
    *,
    seed: int = 0,
    initial_step: int = 0,
    augment: Iterable[str | Mapping[str, Any]] = (),
    drop_remainder: bool = True,
) -> tf.data.Dataset:
    """Shuffled, augmented batches for training: each pass over the dataset is the next epoch.

    A batch is a function of (seed, epoch, step) alone, so a run resumed with `initial_step=t` sees
    bit for bit what the uninterrupted one saw from its step t on.

    Args:
        arrays: examples; uint8 images stay so in memory and are scaled batch by batch.
        batch_size: images per batch, over all replicas.
        seed: seed of the order and of the augmentation.
        initial_step: step at which the first pass begins, counted from 0 over all epochs. Inside an
            epoch, the dataset is the rest of that epoch, to be passed once.
        augment: names of augmentations, or mappings `{"name": ..., option: value}`, applied in order.
        drop_remainder: leave out an epoch's last, smaller batch.

    Returns:
        `tf.data.Dataset` of (images `(B, H, W, C)` float32 in [0, 1], labels `(B,)` int32).

    Raises:
        InputError: arrays, sizes, epochs or augmentations that cannot be used.

    >>> from keras_robust import data
    >>> digits = data.load("digits")
    >>> train = data.pipeline(digits, 128)
    >>> int(train.cardinality()) == data.steps_per_epoch(digits, 128)
    True
    """
    import tensorflow as tf

    from keras_robust.data.augmentation import build

    check(arrays)
    steps = steps_per_epoch(arrays, batch_size, drop_remainder)
    require(initial_step >= 0, f"initial_step must be at least 0. Received: {initial_step}.")
    first_epoch, offset = divmod(initial_step, steps)
    size = len(arrays.labels)
    gather = _gather(arrays)
    augmented = build(augment, arrays.images.shape[1:])
    passes = tf.Variable(first_epoch, dtype=tf.int64, trainable=False)

    def index_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(size), epoch_seed)
        batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder)
        rest = batches.enumerate().skip(offset)
        return rest.map(lambda step, batch: (batch, tf.random.fold_in(epoch_seed, step)))

    def examples(indices: tf.Tensor, step_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = gather(indices)
        return augmented(images, step_seed), labels

    epoch = tf.data.Dataset.range(1).map(lambda _: passes.assign_add(1) - 1)
    stream = epoch.flat_map(index_batches).apply(tf.data.experimental.assert_cardinality(steps - offset))
    dataset = _finish(stream.map(examples, num_parallel_calls=tf.data.AUTOTUNE))
    dataset.passes = passes  # keeps the variable alive as long as the dataset
    return dataset


def batches(arrays: Arrays, batch_size: int) -> tf.data.Dataset:
    """All examples once, in order, for evaluation; the last batch may be smaller.

    Args:
        arrays: examples; uint8 images stay so in memory and are scaled batch by batch.
        batch_size: images per batch.

    Returns:
        `tf.data.Dataset` of (images `(B, H, W, C)` float32 in [0, 1], labels `(B,)` int32).

    Raises:
        InputError: arrays or a batch size that cannot be used.

    >>> from keras_robust import data
    >>> [len(labels) for _, labels in data.batches(data.load("digits", "test"), 128)]
    [128, 128, 104]
    """
    import tensorflow as tf

    check(arrays)
    steps_per_epoch(arrays, batch_size, drop_remainder=False)
    indices = tf.data.Dataset.range(len(arrays.labels)).batch(batch_size)
    return _finish(indices.map(_gather(arrays), num_parallel_calls=tf.data.AUTOTUNE))


def _gather(arrays: Arrays) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    import tensorflow as tf

    with tf.device("CPU:0"):
        all_images = tf.constant(arrays.images)
        all_labels = tf.constant(arrays.labels, tf.int32)

    def gather(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.gather(all_images, indices)
        if images.dtype == tf.uint8:
            images = tf.cast(images, tf.float32) / 255
        return images, tf.gather(all_labels, indices)

    return gather


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # There are no files to share out among workers.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
