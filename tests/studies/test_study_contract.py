"""Every registered study is sound in every profile; `test_whole_*.py` run them."""

from pathlib import Path

import pytest

from keras_robust import studies
from keras_robust.recipes import PROFILES


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


def test_every_study_is_run_by_one_of_the_files_beside():
    here = {path.stem.removeprefix("test_whole_") for path in Path(__file__).parent.glob("test_whole_*.py")}
    assert {name.split("/")[0] for name in studies.names()} == here
