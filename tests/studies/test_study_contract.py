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


# Rows, columns, and the number and sum of the figures that each paper prints, none with its pictures.
PRINTED = {
    "adr/table1": (5, 3, 10, 866.74),
    "adr/table2": (5, 6, 30, 1334.12),
    "adr/table5": (5, 6, 30, 2080.03),
    "adr/table6": (4, 7, 28, 1793.81),
    "atld/table1": (13, 9, 60, 3754.13),
    "atld/table2": (12, 12, 88, 4574.3),
    "atld/table3": (5, 12, 60, 4797.99),
    "atld/table4": (16, 4, 42, 2818.21),
    "atld/table5": (11, 4, 20, 863.92),
    "atld/table6": (5, 24, 120, 8426.48),
    "er/table1": (2, 4, 8, 297.9),
    "er/table2": (2, 1, 2, 154.1),
    "er/table3": (2, 4, 4, 182.9),
    "er/table5": (4, 12, 48, 3953.63),
    "er/table6": (4, 8, 32, 2414.41),
    "er/table7": (4, 8, 32, 2463.49),
    "er/table8": (4, 8, 32, 2275.67),
    "er/table11": (4, 4, 16, 942.5),
    "er/table12": (4, 4, 16, 1020.5),
    "er/table13": (4, 4, 16, 941.5),
    "er/table14": (4, 12, 48, 3578.97),
    "mat/table1": (3, 4, 12, 887.16),
    "mat/table2": (7, 8, 56, 2199.086),
    "mat/table3": (4, 9, 36, 1780.1),
    "mat/table4": (5, 6, 20, 1187.34),
    "mat/table5": (4, 8, 32, 14.917),
    "adr/figure2": (4, 14, 4, 369.01),
    "adr/figure3": (2, 6, 0, 0),
    "adr/figure4": (2, 1, 0, 0),
    "adr/figure5": (2, 2, 0, 0),
    "adr/figure6": (8, 14, 4, 380.05),
    "adr/figure7": (8, 11, 0, 0),
    "adr/figure8": (2, 2, 0, 0),
    "adr/figure9": (2, 2, 0, 0),
    "adr/figure10": (2, 1, 0, 0),
    "adr/figure11": (2, 2, 0, 0),
    "atld/figure1": (3, 2, 0, 0),
    "atld/figure3": (7, 5, 0, 0),
    "atld/figure3_cifar100": (7, 5, 0, 0),
    "atld/figure3_svhn": (7, 5, 0, 0),
    "atld/figure4": (4, 2, 0, 0),
    "atld/figure6": (1, 3, 0, 0),
    "atld/figure7": (3, 1, 0, 0),
    "er/figure3": (7, 17, 0, 0),
    "er/figure3_cifar10": (7, 13, 0, 0),
    "er/figure3_stl10": (7, 13, 0, 0),
    "er/figure3_tiny_imagenet": (7, 11, 0, 0),
    "er/figure4": (3, 17, 0, 0),
    "er/figure5": (2, 1, 0, 0),
    "er/figure6": (2, 1, 0, 0),
    "er/figure7": (5, 17, 0, 0),
    "er/figure8": (4, 17, 0, 0),
    "er/figure9": (3, 17, 0, 0),
    "er/figure10": (2, 3, 0, 0),
    "er/figure11": (2, 1, 0, 0),
    "er/figure12": (2, 1, 0, 0),
    "mat/figure1": (2, 1, 0, 0),
    "mat/figure2": (7, 9, 0, 0),
}


def test_no_figure_of_a_paper_is_lost_or_changed():
    found = {}
    for name in studies.names():
        study = studies.load(name, "paper")
        figures = [figure for row in study.paper.values() for figure in row.values()]
        found[name] = (len(study.rows), len(study.columns), len(figures), round(sum(figures), 3))
    assert found == PRINTED
