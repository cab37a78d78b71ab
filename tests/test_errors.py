"""The one exception and its helpers."""

import numpy as np
import pytest

from keras_robust.errors import InputError, is_finite, require, unknown_name


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_require_raises_only_if_the_condition_fails():
    require(True, "fine")
    with pytest.raises(InputError, match=r"^not fine$"):
        require(False, "not fine")


def test_unknown_name_without_close_match_or_valid_names():
    assert str(unknown_name("model", "zzz", ["alpha"])) == "Unknown model: 'zzz'. Valid: alpha."
    assert str(unknown_name("model", "zzz", [])) == "Unknown model: 'zzz'. Valid: none."


@pytest.mark.parametrize("number", [0, -1.5, np.float32(2), np.int64(3)])
def test_real_numbers_are_finite(number):
    assert is_finite(number)


@pytest.mark.parametrize("thing", ["1", None, float("inf"), np.float32("nan"), 1j, np.ones(2)])
def test_everything_else_is_not(thing):
    assert not is_finite(thing)
