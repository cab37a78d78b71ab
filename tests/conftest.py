"""Tiny models, arrays and worker processes that the tests share."""

import os
import random
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import settings
from keras import layers
from worker_processes import Worker, free_addresses

from keras_robust.models import LatentClassifier

TESTS = Path(__file__).parent

# The first example of a property may trace a graph, and beside other processes any may be slow.
settings.register_profile("keras_robust", deadline=None)
settings.load_profile("keras_robust")


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="slow tests too, and every cell of every study")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("whole"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: runs with --whole"))


@pytest.fixture(scope="session")
def linear():
    """Builds a linear classifier from its weights `(D, K)`, for images of `shape` with D values."""

    def build(weights, shape, bias=0.0):
        model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(weights.shape[1])])
        model.layers[-1].set_weights([weights, np.broadcast_to(bias, weights.shape[1:])])
        return model

    return build


@pytest.fixture(scope="session")
def build_conv_classifier():
    """Builds an untrained `LatentClassifier` of 8x8 grey images with 5 classes, BatchNorm and Dropout."""

    def build():
        random.seed(3)  # Keras draws the seeds from it; set_random_seed drops TensorFlow's kernels too
        encoder = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, activation="tanh"),
                layers.BatchNormalization(moving_variance_initializer=keras.initializers.Constant(0.1)),
                layers.Flatten(),
            ]
        )
        head = keras.Sequential([keras.Input((144,)), layers.Dropout(0.5), layers.Dense(5)])
        return LatentClassifier(encoder, head)

    return build


@pytest.fixture(scope="session")
def conv_classifier(build_conv_classifier):
    return build_conv_classifier()


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits `(1797, 8, 8, 1)` float32 in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[..., None] / 16).astype("float32"), data.target.astype("int32")


@pytest.fixture(scope="session")
def digits_classifier(linear, digits):
    """Ridge regression on the digits: 95% right, 60% under Linf 0.1."""
    images, labels = digits
    inputs = np.c_[images.reshape(len(images), -1), np.ones(len(images))]
    weights = 10 * np.linalg.solve(inputs.T @ inputs + 100 * np.eye(65), inputs.T @ np.eye(10)[labels])
    return linear(weights[:-1], images.shape[1:], weights[-1])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts workers: gives each `(work, *arguments)` its process, which does not outlive the tests."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS / "defenses"]))
    started = []

    def start(*works, addresses=None):
        logs = tmp_path_factory.mktemp("logs")
        addresses = addresses or free_addresses(len(works))
        group = [
            Worker(logs / f"{index}.log", addresses, index, *work) for index, work in enumerate(works) if work
        ]
        started.extend(group)
        return group

    yield start
    for worker in started:
        worker.kill()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
