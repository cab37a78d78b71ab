"""Entries with models beside the classifier, and with several ways to use it."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from keras_robust import data, detection, evaluation, models, recipes, zoo
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
    random.seed(0)
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
    assert "fgsm grey_box" in result.output, "what is left by an attacker who does not know of the transform"
    result = CliRunner().invoke(main, f"evaluate mine:itm {attacked}")
    assert result.exit_code == 2 and "Did you mean 'imt'" in result.output


def test_a_wrapped_model_is_kept_no_entry_of_its_own(entry):
    with pytest.raises(InputError, match=r"built by kr\.models\.build"):
        zoo.save(zoo.load("mine", "imt"), "other")


def test_a_card_says_what_a_variant_withstands_and_how_to_repeat_it(entry, classifier):
    variant = zoo.load("mine", "imt")
    report = evaluation.evaluate(
        variant,
        "digits",
        ["bim-2", "square-5"],
        eps=0.1,
        norm="linf",
        examples=9,
        checks=False,
        progress=False,
    )
    card = zoo.describe(classifier, "mine", variants={"imt": (variant, report)})
    assert card.variants["static"] is None
    said = card.variants["imt"]
    assert said["wrapper"] == VARIANTS["imt"]["wrapper"] and said["examples"] == 9
    expected = {name: round(value, 2) for name, value in report.accuracy.items()}
    assert said["results"] == {**expected, "worst_case": round(report.worst_case, 2)}
    assert list(expected) == ["clean", "bim-2", "bim-2 grey_box", "square-5"]
    assert said["command"].startswith("krobust evaluate mine:imt --attack bim-2 --attack square-5 --dataset")
    zoo.write(entry, classifier, card)
    assert zoo.card("mine").variants == card.variants
    for name in ("static", "imt+"):
        with pytest.raises(InputError, match="Unknown wrapped variant of mine"):
            zoo.describe(classifier, "mine", variants={name: (variant, report)})
    with pytest.raises(InputError, match="mine:imt: the report is of other weights"):
        zoo.describe(classifier, "mine", variants={"imt": (classifier, report)})
    object.__setattr__(variant, "wrapper", {"name": "manifold_transform", "mode": "imt+"})
    with pytest.raises(InputError, match="or of another variant"):
        zoo.describe(classifier, "mine", variants={"imt": (variant, report)})


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


@pytest.fixture
def guarded(tmp_path, classifier):
    """An entry with a detector, and the detector."""
    shown, labels = data.load("digits", "test", examples=120, seed=0)
    guard = detection.ERDetector(bandwidth=0.5).fit(classifier, shown, 1 - shown, labels=labels)
    card = replace(zoo.describe(classifier, "mine"), detectors={"er1": {"results": {"fgsm acc_com": 50.0}}})
    zoo.write(tmp_path / "mine", classifier, card, {"er1": guard})
    return tmp_path / "mine", guard


def test_a_detector_is_kept_with_its_classifier(guarded, classifier):
    entry, guard = guarded
    card = Card.read(entry / "card.yaml")
    assert card.detectors["er1"]["results"] == {"fgsm acc_com": 50.0}
    with pytest.raises(InputError, match=r"names the detectors \['er1'\]. Received: \[\]"):
        zoo.write(entry, classifier, card)
    assert card.files["er1"].file == "er1.npz"
    kept = zoo.detector(entry, "er1")
    np.testing.assert_allclose(kept.score(classifier, images()), guard.score(classifier, images()))
    with pytest.raises(InputError, match=r"Unknown detector of mine: 'er2'\. Did you mean 'er1'"):
        zoo.detector(entry, "er2")


def test_the_command_judges_a_kept_detector(guarded):
    entry, _ = guarded
    asked = f"detect {entry} --dataset digits --attack fgsm --eps 0.1 --norm linf --examples 150"
    result = CliRunner().invoke(main, f"{asked} --fitted er1")
    assert result.exit_code == 0, result.output
    assert "er1" in result.output and "given" in result.output
    result = CliRunner().invoke(main, f"{asked} --fitted er3")
    assert result.exit_code == 2 and "Did you mean 'er1'" in result.output


def test_a_damaged_detector_is_refused(guarded):
    entry, _ = guarded
    whole = (entry / "er1.npz").read_bytes()
    for damaged, said in ((b"<html>" + whole[6:], "not an npz file"), (whole[:-1] + b"x", "altered")):
        (entry / "er1.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=said):
            zoo.detector(entry, "er1")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("er1", {"sha": "0"}, "sha"),
        ("model", {}, "the name of another of its files"),
        ("../er1", {}, "name must be"),
    ],
)
def test_a_bad_word_on_a_detector_is_told_of(guarded, name, changes, said):
    entry, _ = guarded
    card = Card.read(entry / "card.yaml").to_dict()
    card["detectors"] = {name: {**card["detectors"]["er1"], **changes}}
    (entry / "card.yaml").write_text(json.dumps(card))
    with pytest.raises(InputError, match=said):
        Card.read(entry / "card.yaml")


def test_the_results_of_a_card_are_of_the_variant_that_its_name_stands_for(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path))
    classifier = recipes.load("rse_mnist", "smoke").build().classifier
    options = {**classifier.variants["ensemble"]["wrapper"]}
    ensemble = models.wrappers[options.pop("name")](classifier, **options)
    digits = np.random.default_rng(0).random((9, 28, 28, 1), "float32"), np.arange(9)
    asked = {"eps": 0.1, "progress": False, "checks": False}
    of_one, of_all = (evaluation.evaluate(kind, digits, ["fgsm"], **asked) for kind in (classifier, ensemble))
    with pytest.raises(InputError, match="of another variant than its name stands for"):
        zoo.save(classifier, "mine", report=of_one)
    zoo.save(classifier, "mine", report=of_all)
    expected = {name: round(value, 2) for name, value in of_all.accuracy.items()}
    assert {name: zoo.card("mine").results[name] for name in expected} == expected
    again = evaluation.evaluate(zoo.load("mine"), digits, ["fgsm"], **asked)
    assert again.accuracy == of_all.accuracy and again.digests == of_all.digests
