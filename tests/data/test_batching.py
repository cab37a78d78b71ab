from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust import data
from keras_robust.data.augmentation import augmentations
from keras_robust.errors import InputError


def numbered(size: int, dtype=np.uint8) -> data.Arrays:
    """Example i has label i, and an image that tells i."""
    images = np.random.default_rng(1).integers(0, 256, (size, 8, 8, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(size)
    arrays = data.Arrays(images, np.arange(size, dtype=np.int32))
    return arrays if dtype == np.uint8 else arrays.as_float()


def collect(dataset, batches: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(itertools.islice(dataset.as_numpy_iterator(), batches))


def epochs(count: int, *args, **options) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """The batches of the first passes over a pipeline."""
    train = data.pipeline(*args, **options)
    return [collect(train) for _ in range(count)]


def flat(nested) -> list:
    return list(itertools.chain.from_iterable(nested))


def assert_same(first, second) -> None:
    assert len(first) == len(second)
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        np.testing.assert_array_equal(images, other_images)


@settings(max_examples=10)
@given(size=st.integers(3, 40), batch_size=st.integers(1, 12), drop=st.booleans(), seed=st.integers(0, 2**40))
def test_every_epoch_is_a_new_permutation(size, batch_size, drop, seed):
    batch_size = min(batch_size, size)
    arrays = numbered(size)
    steps = data.steps_per_epoch(arrays, batch_size, drop)
    passes = epochs(2, arrays, batch_size, seed=seed, drop_remainder=drop)
    for batches in passes:
        assert len(batches) == steps
        labels = np.concatenate([labels for _, labels in batches])
        assert len(set(labels)) == len(labels) == (steps * batch_size if drop else size)
    for images, labels in flat(passes):
        assert images.dtype == np.float32 and labels.dtype == np.int32
        np.testing.assert_array_equal(images, arrays.take(labels).as_float().images)


def test_order_depends_on_seed_and_epoch():
    def orders(seed):
        return [tuple(labels) for ((_, labels),) in epochs(3, numbered(100), 100, seed=seed)]

    by_seed = [orders(seed) for seed in range(3)]
    assert len(set(flat(by_seed))) == 9
    assert orders(2) == by_seed[2]


@pytest.mark.parametrize("augment", [(), *([name] for name in augmentations), ["pad_crop", "flip"]], ids=str)
def test_a_resumed_run_sees_what_the_uninterrupted_one_saw(augment):
    arrays = numbered(20)
    first, second = epochs(2, arrays, 6, seed=7, augment=augment)
    assert len(first) == len(second) == 3
    (resumed,) = epochs(1, arrays, 6, seed=7, initial_step=3, augment=augment)
    assert_same(resumed, second)


@pytest.mark.parametrize("drop", [True, False])
def test_a_run_can_be_resumed_at_any_step(drop):
    arrays, options = numbered(18), {"batch_size": 6 if drop else 7, "seed": 5, "drop_remainder": drop}
    whole = flat(epochs(3, arrays, augment=["flip"], **options))
    for step in range(9):
        passes = 1 if step % 3 else 3 - step // 3  # inside an epoch, what is left of it
        rest = epochs(passes, arrays, augment=["flip"], initial_step=step, **options)
        assert len(rest[0]) == 3 - step % 3
        assert_same(flat(rest), whole[step : step + len(flat(rest))])


@pytest.mark.parametrize(("step", "left"), [(0, 3), (2, 1), (3, 3)])
def test_cardinality_is_that_of_a_pass(step, left):
    assert int(data.pipeline(numbered(18), 5, initial_step=step).cardinality()) == left


def test_iterators_side_by_side_are_two_epochs():
    options = {"batch_size": 4, "augment": ["pad_crop", "color_jitter"]}
    first, second = epochs(2, numbered(40), **options)
    train = data.pipeline(numbered(40), **options)
    together = list(zip(train.as_numpy_iterator(), train.as_numpy_iterator(), strict=True))
    assert_same([left for left, _ in together], first)
    assert_same([right for _, right in together], second)


def test_pipelines_do_not_disturb_each_other():
    alone = flat(epochs(2, numbered(40), 4))
    trains = [data.pipeline(numbered(40), 4) for _ in range(2)]
    for part in (alone[:10], alone[10:]):
        pairs = list(zip(*(train.as_numpy_iterator() for train in trains), strict=True))
        for one in zip(*pairs, strict=True):
            assert_same(one, part)


def test_a_pass_that_was_broken_off_counts():
    train = data.pipeline(numbered(20), 5)
    collect(train, 1)
    assert_same(collect(train), epochs(2, numbered(20), 5)[1])


@pytest.mark.parametrize(("copies", "passes"), [(1, 20), (20, 1)])
def test_one_image_is_augmented_anew_at_each_step(copies, passes):
    arrays = numbered(1).take([0] * copies)
    batches = flat(epochs(passes, arrays, 1, augment=["pad_crop"]))
    assert len({images.tobytes() for images, _ in batches}) > 10


@pytest.mark.parametrize("make", [lambda a: data.pipeline(a, 5), lambda a: data.batches(a, 5)])
def test_stored_bytes_and_floats_give_the_same_batches(make):
    assert_same(collect(make(numbered(12, np.uint8))), collect(make(numbered(12, np.float32))))


def test_every_byte_is_scaled_as_by_load():
    arrays = data.Arrays(np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1), np.zeros(256, np.int32))
    ((images, _),) = collect(data.batches(arrays, 256))
    np.testing.assert_array_equal(images, arrays.as_float().images)
    assert images.max() == 1


def test_batches_keep_order_and_remainder():
    arrays = numbered(11)
    batches = collect(data.batches(arrays, 4))
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert np.concatenate([labels for _, labels in batches]).tolist() == list(range(11))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), arrays.as_float().images)


def test_points_are_fed_as_they_are():
    moons = data.load("two_moons")
    ((points, _),) = collect(data.batches(moons, 1000))
    np.testing.assert_array_equal(points, moons.images)
    assert next(iter(data.pipeline(moons, 10)))[0].shape == (10, 2)


def test_static_batch_size():
    images, labels = data.pipeline(numbered(20), 6, augment=["pad_crop", "flip"]).element_spec
    assert images.shape == (6, 8, 8, 3) and labels.shape == (6,)


class Recorder(keras.Model):
    """Writes down the labels that `fit` gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen: list[tuple[int, ...]] = []

    def call(self, images):
        return self.dense(images[:, 0, 0])

    def train_step(self, batch):
        _, labels = batch
        tf.py_function(lambda labels: self.seen.append(tuple(labels.numpy())), [labels], [])
        return {"loss": tf.constant(0.0)}


@pytest.mark.parametrize("step", [0, 4, 6])
def test_fit_sees_each_epoch_once(step):
    """As a run is resumed: first what is left of an epoch, then whole ones."""
    arrays, steps, last = numbered(20), 3, 4
    whole = [tuple(labels) for _, labels in flat(epochs(last, arrays, 6))]
    model = Recorder()
    model.compile(run_eagerly=True)
    epoch, offset = divmod(step, steps)
    if offset:
        rest = data.pipeline(arrays, 6, initial_step=step)
        model.fit(rest, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
        epoch += 1
    train = data.pipeline(arrays, 6, initial_step=epoch * steps, augment=["flip"])
    model.fit(train, initial_epoch=epoch, epochs=last, shuffle=False, verbose=0)
    assert model.seen == whole[step:]


def test_replicas_share_out_each_batch():
    """In a process of its own: TensorFlow's devices can be set only once."""
    code = """
        import numpy as np, tensorflow as tf
        from keras_robust import data
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        arrays = data.load("digits")
        arrays = data.Arrays(arrays.images, np.arange(len(arrays.labels), dtype="int32"))
        with strategy.scope():
            train, twin = (data.pipeline(arrays, 300, augment=["pad_crop", "cutout"]) for _ in range(2))
        shared = strategy.experimental_distribute_dataset(train)
        for epoch in range(3):
            for (images, labels), (part_images, part_labels) in zip(twin, shared, strict=True):
                parts = strategy.experimental_local_results(part_labels)
                assert [len(part) for part in parts] == [150, 150]
                assert np.array_equal(np.concatenate(parts), labels)
                parts = strategy.experimental_local_results(part_images)
                assert np.array_equal(np.concatenate(parts), images)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1.*Received: 0"),
        ({"batch_size": 21}, "at most the 20 examples.*Received: 21"),
        ({"batch_size": 5, "initial_step": -1}, "initial_step must be at least 0. Received: -1"),
        ({"batch_size": 5, "augment": ["flop"]}, r"Unknown augmentation: 'flop'. Did you mean 'flip'"),
    ],
)
def test_pipeline_refuses(options, message):
    with pytest.raises(InputError, match=message):
        data.pipeline(numbered(20), **options)


def test_images_out_of_range_are_refused():
    arrays = data.Arrays(np.full((2, 1, 1, 1), 255, np.float32), np.zeros(2, np.int32))
    for make in (data.pipeline, data.batches):
        with pytest.raises(InputError, match="float32 images must lie in"):
            make(arrays, 1)
