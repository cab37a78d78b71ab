"""krobust analyze: what each command prints and writes, and what it refuses."""

import csv
import os

import matplotlib.image
import numpy as np
import pytest
from invoked import krobust
from small_runs import finished_run, moons_run

from keras_robust import analysis, attacks, data, models, zoo
from keras_robust.cli.analyze import analyze

ON_A_MODEL = ("--attack", "fgsm", "--examples", 40, "--seed", 3)
COMMANDS = {
    "surface": ON_A_MODEL,
    "latent": (*ON_A_MODEL, "--perplexity", 5),
    "entropy": ON_A_MODEL,
    "clusters": ON_A_MODEL,
    "cosine": ON_A_MODEL,
    "curve": (*ON_A_MODEL, "--eps", "0:0.2:0.1"),
    "plane": ON_A_MODEL,
    "dimension": ("--examples", 100),
}


def test_every_command_is_tested():
    assert set(COMMANDS) == set(analyze.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_prints_a_table_and_writes_a_picture_with_its_numbers(name, tmp_path):
    subject = {"dimension": "digits", "plane": moons_run()}.get(name, finished_run())
    text = krobust("analyze", name, subject, *COMMANDS[name], "--out", tmp_path / "new")
    assert "┃" in text and f"Wrote {tmp_path / 'new' / name}.png and {name}.csv" in text
    assert sorted(os.listdir(tmp_path / "new")) == [f"{name}.csv", f"{name}.png"]
    assert matplotlib.image.imread(tmp_path / "new" / f"{name}.png").std() > 0, "something is drawn"
    header, *rows = csv.reader((tmp_path / "new" / f"{name}.csv").open())
    assert rows and all(len(row) == len(header) for row in rows)


def test_options_reach_the_function(tmp_path, monkeypatch):
    clusters, asked = analysis.clusters, {}
    monkeypatch.setattr(analysis, "clusters", lambda *given, **to: asked.update(to) or clusters(*given, **to))
    krobust("analyze", "clusters", finished_run(), *ON_A_MODEL, "--clusters", 3)
    assert asked == {"count": 3, "seed": 3}
    axes = [tmp_path / "rademacher", tmp_path / "orthogonal"]
    for out in axes:
        krobust("analyze", "surface", finished_run(), *ON_A_MODEL, "--second", out.name, "--out", out)
    first, second = ((out / "surface.csv").read_text() for out in axes)
    assert first != second


def test_the_numbers_are_those_of_the_function():
    model, card = zoo.open_model(finished_run())
    images, labels = data.load("digits", "test", examples=40, seed=3)
    found = analysis.clusters(model, (images, labels), attacks.FGSM(eps=card.threat["eps"]))
    text = krobust("analyze", "clusters", finished_run(), *ON_A_MODEL)
    assert f"{found.clean_match:.2f}" in text and f"{found.attacked_match:.2f}" in text
    assert "Wrote" not in text


def test_a_keras_file_is_cut_at_a_layer(tmp_path):
    model = models.build("small_cnn", filters=2, hidden=4)
    model.save(tmp_path / "my.keras")
    asked = ("analyze", "cosine", tmp_path / "my.keras")
    assert "say which --dataset" in krobust(*asked, "--eps", 0.1, exit_code=2)
    asked = (*asked, "--dataset", "digits", *ON_A_MODEL)
    assert "give eps" in krobust(*asked, exit_code=2)
    krobust(*asked, "--eps", 0.1)
    layer = model.encoder.layers[1].name
    assert "not linear" in krobust(*asked, "--eps", 0.1, "--at", layer, exit_code=2)


def test_a_curve_reaches_to_twice_the_radius_of_the_card(tmp_path):
    krobust("analyze", "curve", finished_run(), "--attack", "fgsm", "--examples", 10, "--out", tmp_path)
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    eps = zoo.open_model(finished_run())[1].threat["eps"]
    np.testing.assert_allclose([float(row["eps"]) for row in rows], np.linspace(0, 2 * eps, 9), atol=1e-6)
    assert list(rows[0]) == ["eps", "clean", "fgsm", "worst case"]


def test_the_radius_of_a_plane_is_that_of_the_command(tmp_path):
    asked = ("--attack", "ddn-2", "--eps", 0.1, "--examples", 10, "--space", "input", "--out", tmp_path)
    krobust("analyze", "surface", finished_run(), *asked)
    rows = list(csv.DictReader((tmp_path / "surface.csv").open()))
    assert max(float(row["along gradient"]) for row in rows) == pytest.approx(0.1)


def test_what_is_missing_is_said():
    text = krobust("analyze", "latent", finished_run(), *ON_A_MODEL, "--eps", 0, "--show", "successful")
    assert "note: There is no successful adversarial example among 40." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("mapp digits", "No such command 'mapp'"),
        ("latent mne", "'mne'"),
        ("latent", "Missing argument 'MODEL'"),
        ("surface {run} --attack pdg-40", "Unknown attack: 'pdg-40'. Did you mean 'pgd-40'"),
        ("surface {run} --attack clean", "clean is no attack"),
        ("surface {run} --eps 0 --attack fgsm", "a finite number > 0. Received: eps=0.0"),
        ("surface {run} --space pixels", "'pixels' is not one of 'input', 'latent'"),
        ("plane {run} --attack fgsm", "Only points in the plane, (2,), can be drawn"),
        ("entropy {run} --dataset mnits", "Unknown dataset: 'mnits'"),
        ("entropy {run} --eps -1", "eps must be a finite number >= 0"),
        ("entropy {run} --norm l3 --eps 1", "Unknown norm: 'l3'"),
        ("entropy {run} --examples 0", "0 is not in the range x>=1"),
        ("latent {run} --at nowhere", "Unknown layer: 'nowhere'"),
        (
            "latent {run} --attack fgsm --examples 5",
            "perplexity must be > 0 and below the number of points, 10",
        ),
        (
            "clusters {run} --attack fgsm --examples 5",
            "must be in 1..5, the number of examples. Received: 10",
        ),
        ("curve {run} --eps 3:1:1", "rising from 0 or more"),
        ("curve {run} --attack pdg-40", "Unknown attack: 'pdg-40'"),
        ("dimension mnits", "Unknown dataset: 'mnits'"),
        ("dimension digits --examples 5", "More than 12 different points are needed"),
        ("dimension digits --examples 50 --out {file}/new", "Cannot write {file}/new"),
    ],
)
def test_bad_input_is_told_without_a_traceback(tmp_path, arguments, words):
    (tmp_path / "file").write_text("")
    places = {"file": tmp_path / "file", "run": finished_run()}
    text = krobust("analyze", *(part.format(**places) for part in arguments.split()), exit_code=2)
    assert words.format(**places) in " ".join(text.split()) and "Traceback" not in text
    assert os.listdir(tmp_path) == ["file"], "nothing was written"
