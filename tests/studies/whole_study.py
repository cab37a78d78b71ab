"""What holds of every study that is run in its smoke profile."""

from keras_robust import studies
from keras_robust.studies.results import QUOTED


def of(system):
    """Names of a system's studies."""
    return [name for name in studies.names() if name.startswith(f"{system}/")]


def check_whole(name, runs):
    """Every row and column is there, with a value or the reason why not, and so are the files."""
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
