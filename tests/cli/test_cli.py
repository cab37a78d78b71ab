"""The command line: what it prints and writes, how it ends, and what it does not import."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import tensorflow as tf
import yaml
from invoked import krobust
from reports import without_seconds
from small_runs import SMALL, finished_run

from keras_robust import evaluation, models, recipes, zoo
from keras_robust.cli import main, output
from keras_robust.exporting import load_exported

ROOT = Path(__file__).parents[2]


def in_process(code_or_arguments):
    """The command, or other code, in a fresh interpreter."""
    code = code_or_arguments
    if not isinstance(code, str):
        code = f"import sys; sys.argv = {['krobust', *code]}; from keras_robust.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def entry(tmp_path_factory):
    """A user's zoo with the entry "mine"."""
    place = tmp_path_factory.mktemp("zoo")
    patch = pytest.MonkeyPatch()
    patch.setenv("KERAS_ROBUST_ZOO", str(place))
    recipe = recipes.load("trades_digits", "smoke")
    yield zoo.save(models.build("small_cnn", filters=2, hidden=4), "mine", recipe=recipe)
    patch.undo()


# Help


def commands(group, path=()):
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), commands(main), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_helps_with_an_example_of_itself(path, command):
    text = krobust(*path, "--help")
    example = " ".join(("krobust", *path))
    assert "Example" in text and f"\n    {example}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.help, f"{parameter.name} is not explained"


def test_looking_around_does_not_import_tensorflow():
    code = """
import sys
from keras_robust.cli import main
for arguments in (["--help"], ["--version"], ["train", "--help"], ["zoo", "list"], ["zoo", "list", "--json"],
                  ["zoo", "show", "mine"], ["zoo", "verify", "mine"], ["recipes", "list"]):
    main(arguments, standalone_mode=False)
    heavy = {"tensorflow", "keras", "sklearn", "matplotlib"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    done = in_process(code)
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout and "trades_digits" in done.stdout


def test_a_failing_command_of_the_shell_says_why_in_one_message():
    done = in_process(["zoo", "show", "mne"])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Error: Unknown model in the zoo: 'mne'. Did you mean 'mine'?")
    assert "Traceback" not in done.stderr


# The zoo and the recipes


def test_zoo_list():
    text = krobust("zoo", "list")
    assert all(card.name in text for card in zoo.list())
    cards = json.loads(krobust("zoo", "list", "--json"))
    assert [zoo.Card.from_dict(card) for card in cards] == zoo.list()
    cards = json.loads(krobust("zoo", "list", "--dataset", "digits", "--defense", "trades", "--json"))
    assert "mine" in [card["name"] for card in cards]
    assert all((card["dataset"], card["defense"]) == ("digits", "trades") for card in cards)


def test_zoo_show():
    text = krobust("zoo", "show", "mine")
    assert "mine: " in text and "small_cnn" in text and zoo.card("mine").sha256 in text
    assert zoo.Card.from_dict(json.loads(krobust("zoo", "show", "mine", "--json"))) == zoo.card("mine")


def test_zoo_verify_and_pull(entry):
    assert krobust("zoo", "verify", "mine") == "mine: ok\n"
    assert "mine: ok" in krobust("zoo", "verify")
    assert krobust("zoo", "pull", "mine").strip() == str(entry / "model.weights.h5")


def test_an_altered_entry_fails(tmp_path, monkeypatch, entry):
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path))
    altered = zoo.save(models.build("small_cnn", filters=2, hidden=4), "altered") / "model.weights.h5"
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    zoo.save(models.build("small_cnn", filters=2, hidden=4), "whole")
    text = krobust("zoo", "verify", exit_code=2)
    assert "altered" in text and "whole: ok" in text, "one does not hide the others"


def test_recipes():
    listed = krobust("recipes", "list")
    assert all(name in listed for name in recipes.names())
    shown = krobust("recipes", "show", "trades_digits", "--profile", "paper", "--set", "defense.beta=2.5")
    expected = recipes.load("trades_digits", "paper", ["defense.beta=2.5"])
    assert yaml.safe_load(shown) == expected.to_dict()


# Train, evaluate, export


def test_train_then_evaluate_then_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    text = krobust("train", "standard_digits", "--profile", "smoke", *settings, "--set", "guard={}")
    assert "held_out_clean" in text and "━" not in text, "no bar where nobody sees it move"
    assert text.endswith("Trained. Evaluate it with: krobust evaluate runs/standard_digits\n")
    text = krobust("evaluate", "runs/standard_digits", "--attack", "fgsm", "--examples", 20)
    assert "standard_digits on 20 examples of digits, linf eps 0.1" in text
    krobust("train", "runs/standard_digits/recipe.yaml", "--out", "at_digits")
    card = zoo.Card.read(tmp_path / "at_digits" / "card.yaml")
    assert (card.name, card.training["profile"]) == ("standard_digits", "smoke"), "as the run's recipe says"
    krobust("export", "runs/standard_digits", "served/small")
    assert (tmp_path / "served" / "small" / "saved_model.pb").is_file()


def test_evaluate_writes_what_it_prints(tmp_path):
    attacks = ("--attack", "fgsm", "--attack", "square-5")
    text = krobust(
        "evaluate", finished_run(), *attacks, "--examples", 50, "--seed", 3, "--out", tmp_path / "new"
    )
    assert text.endswith(f"Wrote {tmp_path / 'new' / 'report.json'}\n")
    report = evaluation.Report.from_json(tmp_path / "new" / "report.json")
    for name, accuracy in report.accuracy.items():
        assert any(name in line and f"{accuracy:.2f}" in line for line in text.splitlines())
    assert list(report.outcomes) == ["clean", "fgsm", "square-5"]
    assert (report.examples, report.seed, report.dataset) == (50, 3, "digits")
    model, card = zoo.open_model(finished_run())
    assert report.threat == {"norm": "linf", "eps": card.threat["eps"]}
    expected = evaluation.evaluate(
        model, "digits", ["fgsm", "square-5"], eps=0.1, examples=50, seed=3, progress=False
    )
    assert report.accuracy == expected.accuracy


def test_evaluate_tells_of_masking(monkeypatch):
    monkeypatch.setitem(evaluation.checks._entries, "always", lambda evidence: "the number may not hold")
    text = krobust("evaluate", finished_run(), "--attack", "fgsm", "--examples", 5)
    assert "warning: the number may not hold" in text


def test_a_step_size_is_that_of_gradient_attacks(tmp_path):
    asked = ("--attack", "pgd-2", "--examples", 5, "--step-size", 0.03, "--out", tmp_path)
    krobust("evaluate", finished_run(), *asked)
    outcome = evaluation.Report.from_json(tmp_path / "report.json").outcomes["pgd-2"]
    assert outcome.options["step_size"] == 0.03


def test_shards_are_merged_and_a_missing_one_is_told(tmp_path):
    asked = ("evaluate", finished_run(), "--attack", "fgsm", "--examples", 40, "--batch", 10)
    shards = [tmp_path / f"shard{number}" for number in (1, 2)]
    for number, shard in enumerate(shards, start=1):
        krobust(*asked, "--shard", f"{number}/2", "--out", shard)
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    krobust(*asked, "--out", whole)
    assert f"Wrote {merged / 'report.json'}" in krobust("merge", *shards, "--out", merged)
    reports = [evaluation.Report.from_json(place / "report.json") for place in (merged, whole)]
    assert without_seconds(reports[0]) == without_seconds(reports[1])
    text = krobust("merge", shards[1], "--out", tmp_path / "half", exit_code=2)
    assert "Missing: 1/2" in text and not (tmp_path / "half").exists()
    (tmp_path / "other.json").write_text("[]")
    assert "other.json" in krobust("merge", shards[0], tmp_path / "other.json", "--out", whole, exit_code=2)


def test_a_warning_is_printed_as_it_is(capsys):
    output.print_report(SimpleNamespace(table=str, flags=["pgd [/x] leaves [4 0] of [bold]"]))
    assert "pgd [/x] leaves [4 0] of [bold]" in capsys.readouterr().out


def test_a_keras_file_needs_a_dataset_and_a_radius(tmp_path):
    models.build("small_cnn", filters=2, hidden=4).save(tmp_path / "my.keras")
    path = tmp_path / "my.keras"
    assert "say which --dataset" in krobust("evaluate", path, exit_code=2)
    assert "give eps" in krobust("evaluate", path, "--dataset", "digits", exit_code=2)
    krobust("evaluate", path, "--dataset", "digits", "--eps", 0.1, "--attack", "fgsm", "--examples", 5)
    assert "say which --dataset" in krobust(
        "export", path, tmp_path / "m.tflite", "--quantize", "int8", exit_code=2
    )
    krobust("export", path, tmp_path / "m.tflite")


def test_a_model_without_a_threat_exports_too(tmp_path):
    plain = zoo.save(models.build("small_cnn", filters=2, hidden=4), "plain", directory=tmp_path)
    asked = ("export", plain, tmp_path / "plain.tflite", "--format")
    assert "plain.tflite is the name of a tflite" in krobust(*asked, "savedmodel", exit_code=2)
    krobust(*asked, "tflite")
    assert (tmp_path / "plain.tflite").is_file()


def test_int8_is_calibrated_on_what_there_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), np.uint8)
    for number, image in enumerate(images):
        place = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tf.io.encode_png(image).numpy())
    model = models.build("small_cnn", input_shape=(8, 8, 3), num_classes=2, filters=2, hidden=4)
    kept = zoo.save(model, "mine", directory=tmp_path)
    asked = ("--quantize", "int8", "--dataset", f"folder:{tmp_path / 'images'}")
    krobust("export", kept, tmp_path / "mine.tflite", *asked)
    assert (tmp_path / "mine.tflite").is_file()


def test_export_and_check(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the LiteRT runtime is not installed")
    path = tmp_path / "m.tflite"
    text = krobust("export", finished_run(), path, "--check", "--examples", 100)
    assert f"Wrote {path}" in text and "agreement" in text
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    model, _ = zoo.open_model(finished_run())
    np.testing.assert_allclose(load_exported(path)(images), model(images).numpy(), atol=1e-4)


def test_an_export_that_differs_fails(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="the LiteRT runtime is not installed")
    monkeypatch.setattr("keras_robust.exporting.checking.MIN_AGREEMENT", {"float32": 101.0})
    text = krobust("export", finished_run(), tmp_path / "m.tflite", "--check", "--examples", 20, exit_code=1)
    assert "Error: " in text and "101" in text


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train at_digit", "Unknown recipe: 'at_digit'. Did you mean 'at_digits'"),
        ("train no/such.yaml", "Unknown recipe: 'no/such.yaml'"),
        ("train at_digits --profile labtop", "Unknown profile: 'labtop'. Did you mean 'laptop'?"),
        ("train at_digits --set epoch=3", "'epoch'. Did you mean 'epochs'?"),
        ("train at_digits --set optimizer.learning_rate=1e-3", "write 0.001."),
        ("train at_digits --profile smoke --out {file}/run", "Cannot write {file}/run"),
        ("train at_digits --profile smoke --out {run}", "holds a run already"),
        ("evaluate mine --eps 0:0.2:0.1 --out {file}s --shard 1/2", "shards of a sweep cannot be merged"),
        ("train at_digits --strategy many", "'many' is not one of 'single', 'mirrored'"),
        ("recipes show nothing", "Unknown recipe: 'nothing'"),
        ("zoo show mne", "Unknown model in the zoo: 'mne'. Did you mean 'mine'?"),
        ("zoo verify mne", "Unknown model in the zoo: 'mne'"),
        ("zoo pull mne", "Unknown model in the zoo: 'mne'"),
        ("zoo list --dataset mnits", "'mnits'"),
        ("evaluate mne", "'mne'. Did you mean 'mine'?"),
        ("evaluate no/such/directory", "'no/such/directory'"),
        ("evaluate {file}", "There is no model at {file}"),
        ("evaluate {run} --attack pdg-40", "Unknown attack: 'pdg-40'. Did you mean 'pgd-40'"),
        ("evaluate {run} --dataset mnits", "Unknown dataset: 'mnits'"),
        ("evaluate {run} --eps -1", "eps must be a finite number >= 0"),
        ("evaluate {run} --norm l3 --eps 1", "Unknown norm: 'l3'"),
        ("evaluate {run} --examples 0", "0 is not in the range x>=1"),
        ("evaluate {run} --examples 400", "examples must be in 1..360. Received: 400"),
        ("transfer", "Missing argument"),
        ("transfer mine", "Give two or more different models. Received: mine."),
        ("transfer mine mine", "Give two or more different models. Received: mine, mine."),
        ("transfer mine mne", "'mne'. Did you mean 'mine'?"),
        ("transfer mine {run} --eps 1 --attack pdg-40", "Unknown attack: 'pdg-40'"),
        ("transfer mine {run} --eps 1 --dataset mnits", "Unknown dataset: 'mnits'"),
        ("transfer mine {run}", "different threat models: give norm and eps"),
        ("transfer mine {run} --eps -1", "eps must be a finite number >= 0"),
        ("transfer mine {run} --norm l3 --eps 1", "Unknown norm: 'l3'"),
        ("transfer mine {run} --examples 0", "0 is not in the range x>=1"),
        ("transfer mine {run} --eps 1 --attack fgsm --examples 5 --out {file}/t", "Cannot write {file}/t"),
        ("evaluate {run} --attack fgsm --examples 5 --out {file}/report", "Cannot write {file}/report"),
        ("export {run} {file}.h5", "the ending '.h5' is not one of an export"),
        ("export {run} {file}.tflite --quantize int9", "'int9'"),
        ("export mne {file}.tflite", "'mne'"),
        ("export {run} {file}/served", "Cannot write {file}: {file} is a file"),
        ("export {run} {file}.tflite --eps 0.1", "--eps and --norm are those of --check"),
        ("export {run} {file}.tflite --dataset digits", "--dataset is that of --check or of --quantize int8"),
        ("evaluate ~nobody-by-this-name/model", "Unknown model"),
        ("evaluate {long}", "File name too long"),
        ("tarin at_digits", "No such command 'tarin'"),
    ],
)
def test_bad_input_is_told_without_a_traceback(tmp_path, arguments, words):
    (tmp_path / "file").write_text("")
    places = {"file": tmp_path / "file", "run": finished_run(), "long": "name" * 100}
    text = krobust(*(part.format(**places) for part in arguments.split()), exit_code=2)
    assert words.format(**places) in text and "Error: " in text and "Traceback" not in text
    assert os.listdir(tmp_path) == ["file"], "nothing was written"
