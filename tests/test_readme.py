"""Every example in the README and CONTRIBUTING runs as written."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import keras_robust as kr
from keras_robust.cli import main

ROOT = Path(__file__).resolve().parent.parent
SETUP = ("make", "pip", ".venv/bin/", "python tools/")  # what sets the machine up, tested elsewhere


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands(page: str) -> list[str]:
    lines = "\n".join(blocks(page, "bash")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line and not line.startswith(SETUP)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path / "zoo"))


@pytest.mark.parametrize("code", blocks("README.md", "python"))
def test_readme_python(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("code", blocks("CONTRIBUTING.md", "python"))
def test_contributing_python(code, monkeypatch):
    for registry in (kr.attacks.objectives, kr.defenses.defenses):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    scope = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), scope)
    digits = kr.data.load("digits", examples=64, seed=0)
    model = kr.models.build("small_cnn")
    if "LogitSquare" in scope:
        model.compile(loss=scope["LogitSquare"]())
        model.fit(*digits, verbose=0)
    if "attack" in scope:
        assert scope["attack"](model, *digits).shape == digits.images.shape
    if "LogitPairing" in scope:
        defense = scope["LogitPairing"](model, kr.attacks.PGD(eps=0.1, steps=1))
        defense.compile()
        assert "pairing" in defense.fit(*digits, verbose=0).history


def test_contributing_recipe(tmp_path):
    (text,) = blocks("CONTRIBUTING.md", "yaml")
    assert yaml.safe_load(text)
    (tmp_path / "my.yaml").write_text(text)
    for profile in ("paper", "laptop", "smoke"):
        assert kr.recipes.load(tmp_path / "my.yaml", profile).defense["name"] == "trades"


def test_readme_commands():
    listed = commands("README.md")
    assert listed
    for command in listed:
        program, *arguments = shlex.split(command)
        assert program == "krobust"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
