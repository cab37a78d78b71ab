"""A run: what it leaves, and that however it is stopped it ends as if it had not been."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner
from small_runs import FINISHED, STEPS, finished_run, sending, small_recipe

import keras_robust as kr
from keras_robust import training
from keras_robust.attacks import classify
from keras_robust.cli import main
from keras_robust.errors import InputError
from keras_robust.recipes import Recipe
from keras_robust.zoo import Card

TESTS = Path(__file__).parent
FILES = [
    "best.weights.h5",
    "card.yaml",
    "checkpoint.weights.h5",
    "history.csv",
    "model.weights.h5",
    "recipe.yaml",
]
HELD_OUT = ["held_out_clean", "held_out_white_box", "held_out_black_box"]


def arrays(path):
    """Every array of an HDF5 file."""
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def assert_same_arrays(path, other, **tolerance):
    left, right = arrays(path), arrays(other)
    assert left.keys() == right.keys() and len(left) > 5
    for name, values in left.items():
        np.testing.assert_allclose(values, right[name], **{"rtol": 0, "atol": 0, **tolerance}, err_msg=name)


def run_script(name, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, str(TESTS / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


# What a run leaves


def test_a_run_leaves_its_files_and_nothing_else():
    assert sorted(os.listdir(finished_run())) == FILES
    settings = yaml.safe_load((finished_run() / "recipe.yaml").read_text())
    assert Recipe.from_dict(settings) == small_recipe(*FINISHED)


def test_the_log_has_a_row_an_epoch_with_the_columns_of_the_guard():
    rows = training.history(finished_run())
    assert [row["epoch"] for row in rows] == [0, 1]
    for row in rows:
        assert {"loss", "accuracy", "adversarial_accuracy", "seconds", *HELD_OUT} <= row.keys()
        assert 0 <= row["held_out_white_box"] <= row["held_out_clean"] <= 1 and row["seconds"] > 0
        assert training.score(row) == (min(row[name] for name in HELD_OUT), row["held_out_clean"])


def test_a_run_opens_like_an_entry_of_the_zoo():
    recipe = small_recipe(*FINISHED)
    model, card = kr.zoo.open_model(finished_run())
    assert (card.name, card.dataset, card.defense) == ("at_digits", "digits", "adversarial_training")
    assert card.threat == recipe.threat and card.training["epochs"] == 2
    kept = recipe.classifier()
    kept.load_weights(finished_run() / training.BEST)
    for left, right in zip(model.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_what_is_kept_has_the_best_score_of_the_log():
    model, _ = kr.zoo.open_model(finished_run())
    guard = small_recipe(*FINISHED).callbacks()[0]
    standing = classify(model, guard.images) == guard.labels
    accuracies = {"clean": standing.mean()}
    for name, attack in guard.attacks.items():
        found = attack(model, guard.images[standing], guard.labels[standing])
        accuracies[name] = (classify(model, found) == guard.labels[standing]).sum() / len(standing)
    best = max(training.history(finished_run()), key=training.score)
    for name, value in accuracies.items():
        assert best[f"held_out_{name}"] == pytest.approx(value)


# Going on


@pytest.fixture
def copied(tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished_run(), tmp_path / "run")


def test_a_run_is_not_begun_in_the_directory_of_another(copied):
    with pytest.raises(
        InputError, match=r"run holds a run already\. Resume it \(--resume\) or choose another"
    ):
        training.train(small_recipe(*FINISHED), copied)


def test_a_run_that_could_not_begin_leaves_its_directory_to_another(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Cannot hold out 1000000"):
        training.train(small_recipe("held_out=1000000"), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    monkeypatch.setattr(Recipe, "build", lambda _: {}["what Keras says"])
    with pytest.raises(KeyError):
        training.train(small_recipe(), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_recipe_in_other_words_goes_on_with_a_run(copied):
    before = (copied / "best.weights.h5").read_bytes()
    training.train(
        replace(small_recipe(*FINISHED), description="Other words"), copied, resume=True, verbose=0
    )
    assert (copied / "best.weights.h5").read_bytes() == before
    assert Card.read(copied / "card.yaml").description == "Other words"


def test_another_recipe_does_not_go_on_with_a_run(copied):
    other = small_recipe(*FINISHED, "epochs=3", "adversary.steps=5")
    with pytest.raises(InputError) as error:
        training.train(other, copied, resume=True)
    text = str(error.value)
    assert "begun with another recipe: adversary: {'name': 'pgd', 'steps': 2}, now" in text
    assert text.endswith("epochs: 2, now 3.")


def test_going_on_with_a_finished_run_changes_nothing(copied):
    training.train(small_recipe(*FINISHED), copied, resume=True, verbose=0)
    assert (copied / "history.csv").read_text() == (finished_run() / "history.csv").read_text()
    for name in ("checkpoint.weights.h5", "best.weights.h5", "model.weights.h5"):
        assert_same_arrays(copied / name, finished_run() / name)


def test_a_damaged_checkpoint_is_told(copied):
    checkpoint = copied / "checkpoint.weights.h5"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"Cannot go on from .*checkpoint\.weights\.h5"):
        training.train(small_recipe(*FINISHED), copied, resume=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [("best.weights.h5", "Cannot go on from"), ("history.csv", "is not the log of a run")],
)
def test_what_else_is_damaged_is_told(copied, name, words):
    (copied / name).write_bytes((copied / name).read_bytes()[:-20])
    with pytest.raises(InputError, match=words):
        training.train(small_recipe(*FINISHED), copied, resume=True, verbose=0)


def test_a_kept_model_is_not_written_over(copied):
    (copied / "recipe.yaml").unlink()
    with pytest.raises(InputError, match="holds a model that no run left"):
        training.train(small_recipe(*FINISHED), copied, resume=True)


def test_an_unknown_strategy_and_a_bad_place_are_told(tmp_path):
    with pytest.raises(InputError, match=r"Unknown strategy: 'mirored'\. Did you mean 'mirrored'\?"):
        training.train(small_recipe(), tmp_path / "run", strategy="mirored")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        training.train(small_recipe(), tmp_path / "file" / "run")


@pytest.fixture(scope="module")
def command(tmp_path_factory, digits):
    """`krobust train` of a network with dropout and averaged weights, on images that are large enough for it;
    the guard leaves out every second epoch."""
    folder = tmp_path_factory.mktemp("images")
    images, labels = digits
    for label in range(10):
        (folder / str(label)).mkdir()
        for number, image in enumerate(images[labels == label][:13]):
            pixels = np.kron(image[..., 0], np.ones((2, 2)))[..., None]
            png = tf.io.encode_png((255 * pixels).astype("uint8")).numpy()
            (folder / str(label) / f"{number}.png").write_bytes(png)
    settings = [
        f"dataset=folder:{folder}",
        "architecture={name: cnn_4c3f, filters: 4, hidden: 8}",
        "optimizer={name: adam, learning_rate: 0.01, use_ema: true, ema_momentum: 0.5}",
        "guard={white_box: {name: fgsm}, black_box: {name: square, queries: 3}, every: 2}",
        "examples=null",
        "held_out=40",
        "batch_size=16",
        "epochs=4",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    return ["train", "at_digits", "--profile", "smoke", *options]


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "uninterrupted"
    result = CliRunner().invoke(main, [*command, "--out", str(directory)])
    assert result.exit_code == 0, result.output
    return directory


def assert_ends_like(uninterrupted, directory, command, torn_epoch=None):
    """Resume the run in `directory` and compare all that it leaves."""
    result = CliRunner().invoke(main, [*command, "--out", str(directory), "--resume"])
    assert result.exit_code == 0, result.output
    for name in ("checkpoint.weights.h5", "best.weights.h5", "model.weights.h5"):
        assert_same_arrays(directory / name, uninterrupted / name)
    found, expected = (
        list(csv.DictReader((where / "history.csv").open())) for where in (directory, uninterrupted)
    )
    assert len(found) == len(expected) == 4
    for row, other in zip(found, expected, strict=True):
        is_torn = row["epoch"] == str(torn_epoch)  # the means of its second part only
        compared = {"epoch", *HELD_OUT} if is_torn else row.keys() - {"seconds"}
        assert {key: row[key] for key in compared} == {key: other[key] for key in compared}
    assert sorted(os.listdir(directory)) == FILES


def test_the_uninterrupted_run_is_worth_comparing_with(uninterrupted):
    rows = training.history(uninterrupted)
    assert [HELD_OUT[0] in row for row in rows] == [True, False, True, True], "every second, and the last"
    assert int(arrays(uninterrupted / "checkpoint.weights.h5")["vars/0"]) == 4 * STEPS


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_epoch_and_ends_the_same(command, uninterrupted, tmp_path):
    directory = tmp_path / "run"
    done = run_script("killed_run.py", STEPS + 2, *command, "--out", directory)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(training.history(directory)) == 1 and "card.yaml" not in os.listdir(directory)
    assert_ends_like(uninterrupted, directory, command)


@pytest.mark.parametrize(
    ("moment", "steps_saved", "torn_epoch"),
    [({"after_step": STEPS + 1}, STEPS + 1, 1), ({"after_epoch": 2}, 2 * STEPS, None)],
    ids=["in an epoch", "while an epoch is scored"],
)
def test_an_interrupted_run_saves_and_ends_the_same(
    command, uninterrupted, tmp_path, moment, steps_saved, torn_epoch
):
    directory = tmp_path / "run"
    with sending(signal.SIGINT, **moment):
        result = CliRunner().invoke(main, [*command, "--out", str(directory)])
    assert result.exit_code == 1
    assert "Interrupted. Go on with: krobust train at_digits --profile smoke --set" in result.output
    assert result.output.rstrip().endswith(f"--out {directory} --resume")
    assert int(arrays(directory / "checkpoint.weights.h5")["vars/0"]) == steps_saved
    assert_ends_like(uninterrupted, directory, command, torn_epoch)


@pytest.mark.slow
def test_a_mirrored_run_takes_the_steps_of_one_device(tmp_path):
    done = run_script("mirrored_run.py", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "run")) == FILES
    assert_same_arrays(
        tmp_path / "run" / "checkpoint.weights.h5", finished_run() / "checkpoint.weights.h5", atol=1e-3
    )
    rows, expected = training.history(tmp_path / "run"), training.history(finished_run())
    for row, one in zip(rows, expected, strict=True):
        assert row["loss"] == pytest.approx(one["loss"], abs=1e-3)
