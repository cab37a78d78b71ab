"""Entries with models beside the classifier, and with several ways to use it."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_robust import models, zoo
from keras_robust.cli import main
from keras_robust.errors import InputError
from keras_robust.zoo import Card

EPS = 0.2
VARIANTS = {
    "static": None,
    "imt": {"wrapper": {"name": "manifold_transform", "mode": "imt", "eps": EPS}},
}


@pytest.fixture
def classifier():
    keras.utils.set_random_seed(0)
    built = models.build("small_cnn", filters=2, hidden=8)
    discriminator = models.build_discriminator("residual_mlp", (10,), depth=1, width=8)
    declared = {"adaptive": [], "variants": VARIANTS, "companions": {"discriminator": discriminator}}
    for name, value in declared.items():
        object.__setattr__(built, name, value)
    return built


@pytest.fixture
def entry(tmp_path, monkeypatch, classifier):
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path))
    return zoo.save(classifier, "mine")


def images():
    return np.random.default_rng(0).random((5, 8, 8, 1), "float32")


def test_an_entry_keeps_its_companions_beside_its_weights(entry, classifier):
    assert {path.name for path in entry.iterdir()} == {
        "card.yaml",
        "model.weights.h5",
        "discriminator.weights.h5",
    }
    kept = zoo.load("mine").companions["discriminator"]
    logits = np.random.default_rng(0).normal(size=(3, 10)).astype("float32")
    there = classifier.companions["discriminator"](logits)["manifold"]
    np.testing.assert_array_equal(kept(logits)["manifold"], there)
    assert zoo.verify("mine") == entry / "model.weights.h5"


def test_the_first_variant_is_the_default_and_each_is_what_its_wrapper_makes(entry, classifier):
    static = classifier(images())
    wrapped = models.with_manifold_transform(
        classifier, classifier.companions["discriminator"], "imt", eps=EPS
    )(images())
    assert np.abs(wrapped - static).max() > 1e-4
    for variant, expected in {None: static, "static": static, "imt": wrapped}.items():
        np.testing.assert_allclose(zoo.load("mine", variant=variant)(images()), expected, atol=1e-5)


def test_a_colon_names_the_variant_of_a_model(entry):
    assert zoo.resolve("mine:imt") == ("zoo", entry, "imt")
    assert zoo.resolve(f"{entry}:imt") == ("directory", entry, "imt")
    np.testing.assert_array_equal(zoo.open_model("mine:imt")[0](images()), zoo.load("mine", "imt")(images()))
    attacked = "--dataset digits --attack fgsm --eps 0.1 --norm linf --examples 9"
    result = CliRunner().invoke(main, f"evaluate mine:imt {attacked}")
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, f"evaluate mine:itm {attacked}")
    assert result.exit_code == 2 and "Did you mean 'imt'" in result.output


def test_a_wrapped_model_is_kept_no_entry_of_its_own(entry):
    with pytest.raises(InputError, match=r"built by kr\.models\.build"):
        zoo.save(zoo.load("mine", "imt"), "other")


@pytest.mark.parametrize("name", ["mine", "mine:imt"])
def test_a_damaged_companion_is_refused(entry, name):
    (entry / "discriminator.weights.h5").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"discriminator\.weights\.h5"):
        zoo.open_model(name)
    with pytest.raises(InputError, match=r"discriminator\.weights\.h5"):
        zoo.verify("mine")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"imt": {"wraper": {}}}}, "wraper"),
        ({"variants": {"imt": {"wrapper": {"name": "manifold"}}}}, "Did you mean 'manifold_transform'"),
        ({"variants": {"imt": {"wrapper": {"name": "manifold_transform", "esp": 1}}}}, "esp"),
        ({"companions": {"discriminator": {"sha256": "0" * 64, "size": 1}}}, "lacks architecture"),
        ({"companions": {"../x": {"architecture": {}, "sha256": "0" * 64, "size": 1}}}, "name must be"),
    ],
)
def test_a_bad_card_is_told_of(entry, changes, said):
    card = Card.read(entry / "card.yaml")
    text = json.dumps({**card.to_dict(), **changes})  # JSON is YAML
    (entry / "card.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        zoo.load("mine")


def test_a_card_and_a_classifier_must_agree_on_companions(entry, classifier, tmp_path):
    card = replace(Card.read(entry / "card.yaml"), companions={})
    with pytest.raises(InputError, match="companions"):
        zoo.write(tmp_path / "other", classifier, card)
