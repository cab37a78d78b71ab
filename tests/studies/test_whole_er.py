"""Every study of ER-Classifier, run in its smoke profile."""

import pytest
from whole_study import of


@pytest.mark.parametrize("name", of("er"))
def test_every_study_has_each_row_and_column(name, check):
    check(name)
