"""Every registered study: sound in every profile, and whole when it is run."""

import pytest

from keras_robust import studies
from keras_robust.recipes import PROFILES
from keras_robust.studies.results import QUOTED


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one study trains serves all."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", studies.names())
def test_every_profile_of_every_study_is_sound(name, profile):
    study = studies.load(name, profile)
    assert study.title and study.source
    assert studies.describe(name) == study.title


@pytest.mark.parametrize("name", studies.names())
def test_the_papers_figures_are_there(name):
    study = studies.load(name, "paper")
    quoted = [row for row in study.rows if study.cell(row, next(iter(study.columns))) is None]
    assert set(quoted) <= set(study.paper), "a row that is only quoted needs figures"


@pytest.mark.parametrize("name", studies.names())
def test_every_study_runs_and_has_each_row_and_column(name, runs):
    study = studies.load(name, "smoke")
    results = studies.reproduce(name, "smoke", runs, tell=lambda line: None, progress=False)
    assert list(results.cells) == list(study.rows)
    for row, cells in results.cells.items():
        assert list(cells) == list(study.columns)
        for column, cell in cells.items():
            assert cell.paper == study.figure(row, column)
            assert len(cell.values) == len(study.seeds) or cell.note in (QUOTED, "dataset absent")
    place = runs / "studies" / name / "smoke"
    assert {"results.json", "table.md", "table.csv"} <= {path.name for path in place.iterdir()}
