"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib
import pkgutil

import pytest

import keras_robust


def unimportable(name):
    raise ImportError(name)


MODULES = [
    module.name
    for module in pkgutil.walk_packages(keras_robust.__path__, "keras_robust.", onerror=unimportable)
]


@pytest.mark.parametrize("name", ["keras_robust", *MODULES])
def test_examples_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module).failed == 0
