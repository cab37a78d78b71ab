"""What one study trains serves the others of a file."""

import pytest
from whole_study import check_whole

from keras_robust.recipes import Recipe

WHOLE = {"adr/table1"}  # of the others one cell, and of each kind one in a file, unless all is asked for


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


@pytest.fixture(scope="module")
def kinds():
    """The kinds of cells that were measured."""
    return set()


@pytest.fixture
def check(runs, kinds, monkeypatch, pytestconfig):
    """Runs a study by its name and checks what came out."""

    def check(name):
        every_cell = name in WHOLE or pytestconfig.getoption("whole")
        check_whole(name, runs, monkeypatch, None if every_cell else kinds)

    return check
