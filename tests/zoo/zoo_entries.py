"""What tests of entries share: a card, images, and changes to an entry."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_robust import zoo
from keras_robust.errors import InputError
from keras_robust.zoo.cards import Card
from keras_robust.zoo.weights import sha256_and_size

CARD, WEIGHTS = "card.yaml", "model.weights.h5"
IMAGES = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
ARCHITECTURE = {"name": "small_cnn", "filters": 2, "hidden": 4, "input_shape": [8, 8, 1], "num_classes": 10}
CARD_VALUES = {
    "name": "mine",
    "architecture": ARCHITECTURE,
    "dataset": "digits",
    "threat": {"norm": "linf", "eps": 0.1, "step_size": 0.01},
    "results": {"clean": 97.5, "worst_case": 60},
    "paper": {"source": "Table 1", "results": {"pgd-20": 50.0}},
    "sha256": "0" * 64,
    "size": 5,
}
PAGE = b"<!DOCTYPE html><html><title>404</title></html>"


def relabel(entry: Path, **changes) -> Card:
    """Change an entry's card, by default so that its hash and size fit its weights again."""
    card = replace(Card.read(entry / CARD), **(changes or sha256_and_size(entry / WEIGHTS)))
    card.write(entry / CARD)
    return card


def refused(message: str, name: str = "mine") -> None:
    with pytest.raises(InputError, match=message):
        zoo.load(name)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])
