"""An empty zoo of the user, and one entry in it."""

import pytest

from keras_robust import models, zoo


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's zoo and cache, empty."""
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("KERAS_ROBUST_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def classifier():
    return models.build("small_cnn", filters=2, hidden=4)


@pytest.fixture
def entry(classifier):
    """The directory of the one entry, "mine"."""
    return zoo.save(classifier, "mine")
