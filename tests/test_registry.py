"""A registry gives back what was registered, and answers everything else."""

import pytest

from keras_robust.errors import InputError
from keras_robust.registry import Registry


@pytest.fixture
def fruit():
    registry = Registry("fruit")
    registry.register("pear")("PEAR")
    registry.register("apple")("APPLE")
    return registry


def test_is_a_sorted_mapping(fruit):
    assert dict(fruit) == {"apple": "APPLE", "pear": "PEAR"}
    assert list(fruit) == ["apple", "pear"]
    assert len(fruit) == 2 and "pear" in fruit and "fig" not in fruit


def test_register_returns_the_entry(fruit):
    entry = object()
    assert fruit.register("fig")(entry) is entry


def test_a_name_is_registered_once(fruit):
    with pytest.raises(ValueError, match="fruit 'pear' is registered already"):
        fruit.register("pear")


def test_name_of_goes_back(fruit):
    assert all(fruit.name_of(entry) == name for name, entry in fruit.items())
    with pytest.raises(InputError, match="Unknown fruit"):
        fruit.name_of("PLUM")


@pytest.mark.parametrize("name", ["paer", 3, None, ["pear"]])
def test_an_unknown_name_lists_the_valid_ones(fruit, name):
    with pytest.raises(InputError, match=r"Unknown fruit: .* Valid: apple, pear\."):
        fruit[name]


def test_a_mistyped_name_has_close_matches(fruit):
    with pytest.raises(InputError, match="Did you mean 'pear'"):
        fruit["paer"]
