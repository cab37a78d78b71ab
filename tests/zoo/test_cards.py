"""Cards: what they hold, and what they must not."""

import pytest
import yaml
from zoo_entries import ARCHITECTURE, CARD, CARD_VALUES

from keras_robust.errors import InputError
from keras_robust.zoo.cards import Card


def test_a_card_survives_writing_and_reading(tmp_path):
    card = Card.from_dict(CARD_VALUES)
    card.write(tmp_path / CARD)
    assert Card.read(tmp_path / CARD) == card
    assert card.results["worst_case"] == 60
    assert (card.input_shape, card.num_classes, card.norm) == ((8, 8, 1), 10, "linf")


PIN = {key: CARD_VALUES[key] for key in ("sha256", "size")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datset": "digits"}, "card.yaml: 'datset'. Did you mean 'dataset'"),
        ({"results": {"clean": 101}}, "results: clean must be an accuracy in percent.*Received: 101"),
        ({"results": {"clean": float("nan")}}, "results: clean .*Received: nan"),
        ({"results": {"clean": "97"}}, "results: clean .*Received: '97'"),
        ({"results": 97}, "results must be .*Received: 97"),
        ({"paper": {"source": "Table 1", "results": {"pgd": -1}}}, "paper: results: pgd .*Received: -1"),
        ({"paper": {"results": {}}}, "paper lacks source"),
        ({"threat": {"norm": "linf"}}, "threat lacks eps"),
        ({"threat": {"norm": "linf", "eps": "8/255"}}, "threat: eps must be a number. Received: '8/255'"),
        ({"threat": {"norm": "linf", "eps": -0.1}}, "threat: eps must be a finite number >= 0"),
        ({"training": {"recipe": "r", "profile": "laptop", "epochs": "9"}}, "epochs must be an integer"),
        ({"architecture": {"name": "small_cnn"}}, "architecture lacks input_shape, num_classes"),
        ({"architecture": {**ARCHITECTURE, "num_classes": 0}}, "must be at least 1"),
        ({"architecture": {**ARCHITECTURE, "input_shape": ["8"]}}, r"input_shape .*Received: \['8'\]"),
        ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits .*Received: 'abc'"),
        ({"size": 0}, "size must be the bytes .*Received: 0"),
        ({"size": 1.5}, "size must be an integer"),
        ({"url": "ftp://host/file"}, "url must begin with http://, https://, file://.*Received: 'ftp:"),
        ({"name": "../mine"}, "name must be letters.*Received: '../mine'"),
        ({"name": 7}, "name must be text. Received: 7"),
        ({"companions": {1: {"architecture": {}, **PIN}}}, "name must be letters.*Received: 1"),
        (
            {"variants": {"imt": {"wrapper": {}, "results": {"pgd": 140}}}},
            "imt: pgd .*Received: 140",
        ),
    ],
)
def test_a_card_says_which_value_is_wrong(tmp_path, changes, message):
    path = tmp_path / CARD
    path.write_text(yaml.safe_dump({**CARD_VALUES, **changes}))
    with pytest.raises(InputError, match=message) as error:
        Card.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", ["name", "architecture"])
def test_a_card_must_not_lack(key):
    with pytest.raises(InputError, match=f"lacks {key}"):
        Card.from_dict({other: value for other, value in CARD_VALUES.items() if other != key})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"- 1\n- 2", "a card is a mapping"),
        (b"name: [", "not valid YAML"),
        (b"name: \xff", "Cannot read"),
        (b"name: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_card(tmp_path, text, message):
    (tmp_path / CARD).write_bytes(text)
    with pytest.raises(InputError, match=message):
        Card.read(tmp_path / CARD)
