"""The zoo: classifiers kept as a card and a weights file. Importing this does not import TensorFlow.

An entry is a directory `<name>/` with `card.yaml` and `model.weights.h5`. Entries come with the package,
and from the user's own directory: KERAS_ROBUST_ZOO, else `keras_robust/zoo` among the user's data. An entry
may name a URL instead of a packaged file; what is fetched is cached in KERAS_ROBUST_CACHE, else among the
user's caches.
"""

from keras_robust.zoo.cards import Card
from keras_robust.zoo.fetching import pull, verify
from keras_robust.zoo.loading import detector, load, open_model
from keras_robust.zoo.lookup import Reference, card, list, names, resolve
from keras_robust.zoo.saving import describe, save, write

__all__ = [
    "Card",
    "Reference",
    "card",
    "describe",
    "detector",
    "list",
    "load",
    "names",
    "open_model",
    "pull",
    "resolve",
    "save",
    "verify",
    "write",
]
