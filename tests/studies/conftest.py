"""What one study trains serves the others of a file."""

import pytest

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
