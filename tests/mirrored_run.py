"""A small run mirrored over two logical devices: a script, because they are set before TensorFlow starts."""

import sys

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

from small_runs import FINISHED, small_recipe  # noqa: E402

from keras_robust import training  # noqa: E402

strategy = tf.distribute.MirroredStrategy
tf.distribute.MirroredStrategy = lambda: strategy(["CPU:0", "CPU:1"])  # by default only GPUs are taken
training.train(small_recipe(*FINISHED), sys.argv[1], strategy="mirrored", verbose=0)
