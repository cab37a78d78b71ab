"""Options that came as data, against the signature of what they are meant for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from keras_robust.errors import InputError
from keras_robust.schema import check_options


def target(
    count: int,
    rate: float = 0.1,
    name: str = "a",
    flag: bool = False,
    limit: int | None = None,
    at: Sequence[float] = (),
    sizes: tuple[int, ...] = (),
    items: list[Any] | None = None,
    parts: dict[str, Any] | None = None,
    table: Mapping[str, float] | None = None,
    anything: Any = None,
    number=0.5,
    switch=True,
    word="w",
    unknown=None,
    **others,
):
    """Takes one option of every kind."""


GOOD = [
    ("count", 3),
    ("count", -3),
    ("rate", 3),
    ("rate", 0.5),
    ("name", "text"),
    ("flag", True),
    ("limit", None),
    ("limit", 3),
    ("at", [1, 0.5]),
    ("at", []),
    ("sizes", (2, 3)),
    ("items", ["flip", {"name": "flip"}, 3]),
    ("items", None),
    ("parts", {"a": 1}),
    ("table", {"a": 1.0}),
    ("anything", "kl"),
    ("anything", [1]),
    ("number", 1),
    ("switch", False),
    ("word", "v"),
    ("unknown", 0.1),
    ("unknown", None),
]
BAD = [
    ("count", 2.0, "an integer"),
    ("count", True, "an integer"),
    ("count", None, "an integer"),
    ("rate", "fast", "a number"),
    ("rate", False, "a number"),
    ("rate", [0.1], "a number"),
    ("name", 3, "text"),
    ("flag", 1, "true or false"),
    ("flag", "yes", "true or false"),
    ("limit", 0.5, "an integer or null"),
    ("at", 3, "a list (a number each)"),
    ("at", "ab", "a list (a number each)"),
    ("at", [1, "x"], "a list (a number each)"),
    ("sizes", [1.5], "a list (an integer each)"),
    ("items", "flip", "a list or null"),
    ("parts", "small_cnn", "a mapping or null"),
    ("table", ["a"], "a mapping or null"),
    ("number", "x", "a number"),
    ("switch", 0, "true or false"),
    ("word", 3, "text"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_what_fits_passes(name, value):
    check_options("here", {"count": 1, name: value}, target)


@pytest.mark.parametrize(("name", "value", "wanted"), BAD)
def test_a_wrong_type_is_told_with_place_option_value_and_what_is_allowed(name, value, wanted):
    with pytest.raises(InputError) as error:
        check_options("here", {"count": 1, name: value}, target)
    message = f"here: {name} must be {wanted}. Received: {value!r} of type {type(value).__name__}."
    assert str(error.value) == message


@pytest.mark.parametrize("option", ["rate", "count", "number", "unknown", "anything"])
@given(number=st.floats(1e-12, 1e12))
def test_a_number_that_yaml_reads_as_text_is_refused_with_a_spelling_that_it_reads(option, number):
    text = f"{number:.6e}".replace(".", "").replace("e+", "e")  # no dot, and no sign where it can be left out
    assert isinstance(yaml.safe_load(text), str)
    with pytest.raises(InputError) as error:
        check_options("here", {"count": 1, option: text}, target)
    message = str(error.value)
    assert f"here: {option} must be" in message and f"YAML reads {text} as text" in message
    advice = yaml.safe_load(message.rpartition("write ")[2].removesuffix("."))
    assert isinstance(advice, (int, float)) and advice == float(text)


def test_an_unknown_option_is_told_with_close_matches():
    with pytest.raises(InputError) as error:
        check_options("here", {"count": 1, "rte": 2}, target)
    assert str(error.value).startswith(
        "Unknown option of here: 'rte'. Did you mean 'rate'? Valid: anything, at,"
    )


def test_missing_options_are_named():
    with pytest.raises(InputError, match=r"^here lacks count\. Received: {'rate': 1}\.$"):
        check_options("here", {"rate": 1}, target)


def test_what_the_program_supplies_is_neither_taken_nor_missed():
    check_options("here", {}, target, supplied=["count"])
    with pytest.raises(InputError, match="'count'"):
        check_options("here", {"count": 1}, target, supplied=["count"])


class Base:
    def __init__(self, *, depth: int, width: float = 1.0):
        """Takes no more."""


class Child(Base):
    def __init__(self, colour: str = "red", **options):
        """Hands the rest on."""


class Closed(Base):
    def __init__(self, colour: str = "red"):
        """Hands nothing on."""


def test_a_class_takes_what_it_hands_on_to_its_bases():
    check_options("here", {"depth": 1, "width": 2, "colour": "blue"}, Child)
    with pytest.raises(InputError, match="here lacks depth"):
        check_options("here", {"colour": "blue"}, Child)
    with pytest.raises(InputError, match="depth must be an integer"):
        check_options("here", {"depth": 0.5}, Child)
    check_options("here", {"colour": "blue"}, Closed)
    with pytest.raises(InputError, match="Unknown option of here: 'depth'"):
        check_options("here", {"depth": 1}, Closed)
