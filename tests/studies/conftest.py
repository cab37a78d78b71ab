"""What one study trains serves the others of a file."""

from functools import partial

import pytest
from whole_study import check_whole

from keras_robust.recipes import Recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where studies train; eagerly, if there are only a few steps: they are sooner taken than traced."""

    def eager(recipe):
        defense = build(recipe)
        defense.run_eagerly = recipe.epochs * recipe.steps_per_epoch < 30
        return defense

    build = Recipe.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "build", eager)
        yield tmp_path_factory.mktemp("runs")


@pytest.fixture
def check(runs, monkeypatch, pytestconfig):
    """Runs a study by its name and checks what came out."""
    return partial(
        check_whole, runs=runs, monkeypatch=monkeypatch, every_cell=pytestconfig.getoption("whole")
    )
