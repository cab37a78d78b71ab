"""What one study trains serves the others of a file."""

import pytest
from whole_study import check_whole

from keras_robust.recipes import Recipe

WHOLE = {"adr/table1"}  # of the others one cell of each kind, unless all is asked for


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

    def check(name):
        check_whole(name, runs, monkeypatch, every_cell=name in WHOLE or pytestconfig.getoption("whole"))

    return check
