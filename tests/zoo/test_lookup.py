"""Names, filters, and the ways to refer to a classifier."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from zoo_entries import IMAGES, relabel

import keras_robust
from keras_robust import zoo
from keras_robust.errors import InputError


def test_names_and_filters(classifier):
    for name, changes in {
        "one": {"dataset": "digits", "defense": "trades", "threat": {"norm": "linf", "eps": 0.1}},
        "two": {"dataset": "digits", "defense": "standard", "threat": {"norm": "l2", "eps": 1.0}},
        "bare": {},
    }.items():
        relabel(zoo.save(classifier, name), **changes or {"notes": "no more is known"})
    assert {"one", "two", "bare"} <= set(zoo.names())

    def found(**filters):
        return {card.name for card in zoo.list(**filters)} & {"one", "two", "bare"}

    assert found() == found(architecture="small_cnn") == {"one", "two", "bare"}
    assert found(dataset="digits") == {"one", "two"}
    assert found(dataset="digits", norm="l2") == found(defense="standard") == {"two"}
    assert found(dataset="fashion_mnist") == found(defense="adr", norm="l2") == set()
    with pytest.raises(InputError, match=r"Unknown dataset in the zoo: 'digit'. Did you mean 'digits'"):
        zoo.list(dataset="digit")


@pytest.mark.parametrize("look", [zoo.card, zoo.load, zoo.verify, zoo.pull])
def test_an_unknown_name_gets_close_matches(entry, look):
    with pytest.raises(InputError, match=r"Unknown model in the zoo: 'mime'. Did you mean 'mine'"):
        look("mime")


def test_a_card_must_bear_the_name_of_its_directory(entry):
    entry.rename(entry.with_name("yours"))
    with pytest.raises(InputError, match=r"must be that of its directory, 'yours'. Received: 'mine'"):
        zoo.card("yours")


def test_a_card_of_the_user_that_cannot_be_used_hides_no_other(entry):
    entry.rename(entry.with_name("yours"))
    with pytest.warns(UserWarning, match="must be that of its directory.* The entry is left out"):
        assert "yours" not in {card.name for card in zoo.list()}


def test_looking_does_not_import_tensorflow(entry):
    code = """
import sys, keras_robust as kr
assert kr.zoo.list() and kr.zoo.card("mine").name and kr.zoo.verify("mine")
assert not {"tensorflow", "keras", "h5py", "numpy"} & set(sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(keras_robust.__file__).parents[1],
    )
    assert run.returncode == 0, run.stderr


def test_references(entry, tmp_path, classifier, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    zoo.write(run, classifier, zoo.describe(classifier, "other"))
    (tmp_path / "exported").mkdir()
    for path in ("m.keras", "m.tflite", "exported/saved_model.pb"):
        (tmp_path / path).touch()
    assert zoo.resolve("mine") == ("zoo", entry, None)
    assert zoo.resolve("run") == ("directory", Path("run"), None)
    assert zoo.resolve(run).kind == "directory"
    assert [zoo.resolve(path).kind for path in ("m.keras", "m.tflite", "exported")] == [
        "keras",
        "tflite",
        "saved_model",
    ]
    with pytest.raises(InputError, match=r"Unknown model .*'minne'. Did you mean 'mine'"):
        zoo.resolve("minne")
    with pytest.raises(InputError, match=r"no model at .*Valid: a directory with card.yaml"):
        zoo.resolve(tmp_path / "zoo")
    assert zoo.open_model(run)[1].name == "other"
    with pytest.raises(InputError, match="is an export"):
        zoo.open_model("m.tflite")
    with pytest.raises(InputError, match=r"m\.keras cannot be loaded"):
        zoo.open_model("m.keras")


def test_open_keras_file(classifier, tmp_path):
    classifier.save(tmp_path / "m.keras")
    with pytest.raises(InputError, match=r"variants. Received: .*m.keras:imt\."):
        zoo.open_model(f"{tmp_path / 'm.keras'}:imt")
    model, card = zoo.open_model(tmp_path / "m.keras")
    assert card is None
    np.testing.assert_array_equal(model(IMAGES), classifier(IMAGES))


def test_code_in_a_keras_file_does_not_run(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(InputError, match="cannot be loaded"):
        zoo.open_model(tmp_path / "m.keras")
