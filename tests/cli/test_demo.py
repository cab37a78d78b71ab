"""The demo, with runs of a few steps."""

import json
import sys

import pytest
from invoked import krobust
from small_runs import SMALL

from keras_robust import exporting, models, recipes, zoo
from keras_robust.cli import demo

FILES = [
    "accuracy_vs_eps.csv",
    "accuracy_vs_eps.png",
    "pairs.csv",
    "pairs.png",
    "robust.json",
    "robust.tflite",
    "undefended.json",
]


def test_what_the_end_needs_is_missed_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    text = krobust("demo", "--out", tmp_path / "demo", exit_code=2)
    assert "keras-robust[litert]" in text and "Training" not in text


def test_the_demo_goes_the_whole_way(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="the LiteRT runtime is not installed")
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path / "zoo"))
    zoo.save(models.build("small_cnn", filters=2, hidden=4), "mine")
    monkeypatch.setattr(demo, "SHOWN_IN_CARD", "mine")
    monkeypatch.setattr(demo, "ATTACKS", ("fgsm", "square-5"))
    load = recipes.load
    monkeypatch.setattr(recipes, "load", lambda name, profile: load(name, "smoke", SMALL))
    monkeypatch.setitem(exporting.checking.MIN_AGREEMENT, "int8", 0.0)  # the networks have learnt little
    monkeypatch.setattr(exporting.checking, "MAX_ROBUST_GAP", 100.0)
    out = tmp_path / "demo"
    text = krobust("demo", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == FILES
    for twin in ("undefended", "robust"):
        report = json.loads((out / f"{twin}.json").read_text())
        assert list(report["accuracy"]) == ["clean", "fgsm", "square-5"]
        numbers = [f"{value:.1f}" for value in (*report["accuracy"].values(), report["worst_case"])]
        rows = [line for line in text.splitlines() if line.startswith(f"│ {twin} ")]
        assert any(all(number in row for number in numbers) for row in rows)
    assert "Loaded mine from the zoo: images (8, 8, 1) to 10 logits." in text
    assert "mine: " in text
