"""What holds of every study that is run in its smoke profile."""

import csv

from keras_robust import studies
from keras_robust.studies.results import QUOTED
from keras_robust.studies.study import Study


def of(system):
    """Names of a system's studies."""
    return [name for name in studies.names() if name.startswith(f"{system}/")]


def check_whole(name, runs, monkeypatch, kinds=None):
    """Every row and column is there, with values or the reason why not, and so are the files.

    Given `kinds`, it measures one cell of each kind that is not among them yet, and one at least.
    """
    study = studies.load(name, "smoke")
    measured = {place for place in study.places() if study.cell(*place)}
    if kinds is not None:
        measured = one_of_each_kind(study, measured, kinds)
        whole = Study.cell

        def cell(self, *place):
            return whole(self, *place) if place in measured else None

        monkeypatch.setattr(Study, "cell", cell)
    results = studies.reproduce(name, "smoke", runs, tell=lambda line: None, progress=False)
    for row, cells in results.cells.items():
        for column, cell in cells.items():
            assert cell.paper == study.figure(row, column)
            if (row, column) in measured:
                assert len(cell.values) == len(study.seeds) or cell.note == "dataset absent"
                if kinds is not None and cell.values:
                    kinds.add(kind(whole(study, row, column)))
            else:
                assert cell.note == QUOTED
    place = runs / "studies" / name / "smoke"
    assert (place / "results.json").is_file() and (place / "table.md").is_file()
    written = [(line["row"], line["column"]) for line in csv.DictReader((place / "table.csv").open())]
    assert written == [(row, column) for row in study.rows for column in study.columns]


def one_of_each_kind(study, places, kinds):
    """The first place of those with the same measure, attack and number of models, if new to `kinds`."""
    found = {kind(study.cell(*place)): place for place in sorted(places, reverse=True)}
    return {place for kind, place in found.items() if kind not in kinds} or {min(places)}


def kind(cell):
    attack = cell.options.get("attack")
    return (
        cell.measure,
        attack["name"] if isinstance(attack, dict) else attack,
        cell.options.get("protocol"),
        len(cell.named),
        *sorted(cell.options),
    )
