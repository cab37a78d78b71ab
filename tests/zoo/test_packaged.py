"""Every entry that travels with the package."""

import numpy as np
import pytest
from zoo_entries import CARD

from keras_robust import data, recipes, zoo
from keras_robust.defenses import defenses
from keras_robust.models.registry import plain
from keras_robust.packaged import packaged
from keras_robust.threat import NORMS

PACKAGED = sorted(path.parent.name for path in packaged("zoo").glob(f"*/{CARD}"))
MAX_BYTES = 10_000_000


@pytest.mark.parametrize("name", PACKAGED)
class TestPackaged:
    def test_card(self, name):
        card = zoo.card(name)
        info = data.info(card.dataset)
        assert (info.image_shape, info.num_classes) == (card.input_shape, card.num_classes)
        assert card.defense in defenses and card.norm in NORMS and card.threat["eps"] > 0
        assert card.description and card.license and card.training and card.evaluation
        for measured in (card.evaluation, *card.further):
            assert measured["command"].startswith(f"krobust evaluate {name} --attack ")
            assert f" --examples {measured['examples']} --seed 0" in measured["command"]
        assert 0 <= card.results["worst_case"] <= min(card.results.values())
        assert 1 < card.results["clean"] <= 100, "percent"

    def test_it_lists_the_objectives_that_its_defense_declares(self, name):
        card = zoo.card(name)
        recipe = recipes.load(card.training["recipe"], card.training["profile"])
        if recipe.digest != card.training["digest"]:
            pytest.skip("its recipe was changed since")
        assert card.adaptive == plain(recipe.uncompiled().adaptive_objectives())

    def test_size(self, name):
        entry = packaged("zoo") / name
        assert sum(path.stat().st_size for path in entry.iterdir()) < MAX_BYTES

    def test_weights(self, name):
        if zoo.card(name).url is None:
            assert zoo.verify(name).parent == packaged("zoo") / name

    def test_loads(self, name):
        card = zoo.card(name)
        if card.url is not None:
            pytest.skip(f"the weights of {name} are fetched from {card.url}")
        loaded = zoo.load(name)
        assert loaded.input_shape == (None, *card.input_shape)
        logits = np.asarray(loaded(np.random.default_rng(0).random((2, *card.input_shape), np.float32)))
        assert logits.shape == (2, card.num_classes) and logits.dtype == np.float32
        assert np.isfinite(logits).all()
