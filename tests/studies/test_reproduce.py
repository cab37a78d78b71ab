"""A study from its file to its table, on digits."""

import csv
import json
import math
import sys

import pytest
import yaml
from click.testing import CliRunner

from keras_robust import attacks, data, evaluate, recipes, studies
from keras_robust.cli import main
from keras_robust.errors import InputError
from keras_robust.studies.subjects import Shelf

STUDY = {
    "title": "A title",
    "source": "A paper",
    "examples": 12,
    "seeds": [0, 1],
    # Small, but learns enough that there is something to attack.
    "defaults": {
        "set": {
            "architecture.filters": 4,
            "architecture.hidden": 16,
            "examples": 1000,
            "held_out": 48,
            "batch_size": 16,
            "epochs": 4,
            "optimizer.learning_rate": 0.01,
            "guard": {},
        }
    },
    "rows": {
        "AT": {"recipe": "{kind}_digits"},
        "MNIST": {"recipe": "at_mnist"},
        "Quoted": {},
    },
    "columns": {
        "clean": {"where": {"kind": "at"}},
        "0.05": {"attack": {"name": "pgd", "steps": 3}, "eps": 0.05, "where": {"kind": "at"}},
        "norm": {"measure": "distance", "attack": "ddn-10", "where": {"kind": "at"}},
        "transferred": {
            "measure": "transfer",
            "source": "standard_digits",
            "attack": "fgsm",
            "where": {"kind": "at"},
        },
    },
    "paper": {"AT": {"clean": 99.5}, "Quoted": {"0.05": 3.25}},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a study, the one above with changes, and gives its path; MNIST is absent."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)

    def build(**changes):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return "mine.yaml"

    return build


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What the tests of this module train is trained once."""
    runs = tmp_path_factory.mktemp("runs")
    (runs / "trained").mkdir()
    return runs


def reproduce(path, runs, **options):
    return studies.reproduce(path, "smoke", runs, tell=lambda line: None, progress=False, **options)


def test_every_cell_is_measured_quoted_or_says_why_not(write, runs):
    results = reproduce(write(), runs)
    assert list(results.cells) == list(STUDY["rows"])
    assert all(list(cells) == list(STUDY["columns"]) for cells in results.cells.values())
    at = results.cells["AT"]
    assert len(at["clean"].values) == len(at["norm"].values) == 2
    assert 0 <= at["0.05"].mean <= at["clean"].mean <= 100
    assert at["clean"].paper == 99.5 and at["0.05"].theirs == "–"
    assert {cell.ours for cell in results.cells["MNIST"].values()} == {"not measured: dataset absent"}
    assert results.cells["Quoted"]["0.05"].ours == "quoted"


def test_a_cell_that_cannot_be_measured_says_why_and_the_others_go_on(write, runs, monkeypatch):
    def diverged(*_):
        raise InputError("The model returns NaN or infinity; valid: finite logits.")

    # By its module, which the registry of the same name hides.
    monkeypatch.setattr(sys.modules["keras_robust.studies.measures"], "attacked_images", diverged)
    at = reproduce(write(seeds=[0], examples=11), runs).cells["AT"]
    assert at["transferred"].ours.startswith("not measured: The model returns NaN")
    assert len(at["clean"].values) == 1


def test_a_cell_is_what_evaluate_and_transfer_say(write, runs):
    at = reproduce(write(seeds=[0]), runs).cells["AT"]
    shelf = Shelf(runs / "trained", train=False)
    model, source = (
        shelf.model(recipes.load(name, "smoke", {"seed": 0, **STUDY["defaults"]["set"]}))
        for name in ("at_digits", "standard_digits")
    )
    pgd = attacks.PGD(eps=0.05, steps=3, step_size=None)
    attack = {"pgd": pgd, "ddn-10": attacks.DDN(steps=10, norm="l2")}
    sizes = {"eps": 0.05, "examples": 12, "checks": False, "progress": False}
    report = evaluate(model, "digits", attack, **sizes, norm="linf")
    assert at["clean"].values == [report.accuracy["clean"]]
    assert report.accuracy["clean"] > 50
    assert at["0.05"].values == [report.accuracy["pgd"]]
    summary = report.outcomes["ddn-10"].distance_summary
    assert at["norm"].values == pytest.approx([summary["l2"]["mean"]], rel=1e-4)
    images, labels = data.load("digits", "test", 12, 0)
    made = attacks.FGSM(eps=recipes.load("standard_digits", "smoke").threat["eps"])(source, images, labels)
    right = (attacks.classify(model, made) == labels).mean()
    assert at["transferred"].values == pytest.approx([100 * right])


def test_nothing_is_trained_or_measured_twice(write, runs, monkeypatch):
    first = reproduce(write(), runs)
    monkeypatch.setattr("keras_robust.training.train", None)
    monkeypatch.setattr("keras_robust.studies.reproducing.measures", {})
    assert reproduce(write(), runs).to_dict() == first.to_dict()


def test_another_threat_model_is_measured_again(write, runs):
    columns = {"fgsm": {"attack": "fgsm", "where": {"kind": "at"}}}
    found = []
    for eps in (0.0, 1.0):
        changed = {**STUDY["defaults"]["set"], "threat.eps": eps, "adversary.eps": 0.1}
        study = write(seeds=[0], columns=columns, paper={}, defaults={"set": changed})
        found.append(reproduce(study, runs).cells["AT"]["fgsm"].mean)
    assert found[0] > found[1]


def test_a_picture_that_cells_share_is_kept_once(write, runs, tmp_path, monkeypatch):
    def draw(subject, attack):
        subject.directory.mkdir(parents=True, exist_ok=True)
        (subject.directory / "shared.png").write_bytes(b"the same")
        (subject.directory / "own.png").write_text(attack)
        return 1.0

    monkeypatch.setattr("keras_robust.studies.reproducing.measures", {"accuracy": draw})
    columns = {name: {"attack": name, "where": {"kind": "at"}} for name in ("fgsm", "pgd-2")}
    out = tmp_path / "out"
    out.mkdir()
    (out / "trained").symlink_to(runs / "trained")
    results = reproduce(write(seeds=[0], columns=columns, paper={}), out)
    names = {"at-fgsm-0-own.png", "at-fgsm-0-shared.png", "at-pgd-2-0-own.png"}
    assert set(results.pictures) == names and len(results.pictures) == 3
    assert {path.name for path in (out / results.study.directory).glob("*.png")} == names


def test_without_training_a_cell_says_so(write, tmp_path):
    results = reproduce(write(), tmp_path / "empty", train=False)
    assert {cell.note for cell in results.cells["AT"].values()} == {"not trained"}
    assert results.command.endswith(" --no-train") and results.command in results.to_markdown()


def test_the_files_hold_the_same_numbers(write, runs):
    results = reproduce(
        write(curves={"x": "radius"}, columns={"0.05": STUDY["columns"]["0.05"]}, paper={}), runs
    )
    place = runs / "studies" / "mine" / "smoke"
    kept = json.loads((place / "results.json").read_text())["cells"]["AT"]["0.05"]
    assert kept["values"] == results.cells["AT"]["0.05"].values
    lines = list(csv.DictReader((place / "table.csv").open()))
    assert [line["row"] for line in lines] == list(STUDY["rows"])
    assert float(lines[0]["ours"]) == pytest.approx(results.cells["AT"]["0.05"].mean)
    assert "krobust reproduce mine.yaml --profile smoke" in (place / "table.md").read_text()
    assert (place / "curves.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": {"A": {"recipe": "at_digit"}}}, "Did you mean 'at_digits'"),
        ({"columns": {"c": {"measure": "acuracy"}}}, "Did you mean 'accuracy'"),
        ({"columns": {"c": {"atack": "clean"}}}, "atack"),
        ({"columns": {"c": {"measure": "transfer", "attack": "fgsm"}}}, "lacks source"),
        ({"columns": {"c": {"source": "at_digits"}}}, "has no source"),
        ({"paper": {"At": {}}}, "Valid: AT"),
        ({"paper": {"AT": {"clen": 1}}}, "Did you mean 'clean'"),
        ({"defaults": {"set": {"defense.beta": 1.0}}}, "beta"),
        ({"rows": {}}, "no rows"),
        ({"title": 3}, "title must be text"),
        ({"profiles": {"large": {}}}, "Unknown profile"),
        ({"profiles": ["smoke"]}, r"profiles must be a mapping. Received: \['smoke'\]"),
        ({"profiles": {"smoke": 5}}, "profiles: smoke must be a mapping. Received: 5"),
        ({"rows": {"A": 5}}, "row A must be a mapping. Received: 5"),
        ({"columns": {"c": "fgsm"}}, "column c must be a mapping. Received: 'fgsm'"),
        ({"rows": {"A": {"recipe": 5}}}, "by its name. Received: 5"),
        ({"rows": {"A": {"recipe": "at_{data}"}}}, "nothing of what stands in braces in 'at_{data}'"),
        ({"defaults": {"set": ["epochs=1"]}}, "set must be a mapping"),
        ({"defaults": {"where": 5}}, "where must be a mapping"),
        ({"paper": {"AT": 5}}, "AT must be a mapping"),
        ({"paper": {"AT": {"clean": "xx"}}}, "AT, clean must be a number. Received: 'xx'"),
        ({"examples": 0}, "examples must be >= 1"),
    ],
)
def test_a_bad_study_is_told_of(write, changes, said):
    plain = {"rows": {"AT": {"recipe": "at_digits"}}, "columns": {"clean": {}}, "paper": {}}
    with pytest.raises(InputError, match=said):
        studies.load(write(**{**plain, **changes}), "smoke")


def test_the_command_prints_ours_beside_the_papers(write, runs):
    path = write(seeds=[0], columns={"clean": STUDY["columns"]["clean"]}, paper={"AT": {"clean": 99.5}})
    result = CliRunner().invoke(main, ["reproduce", path, "--profile", "smoke", "--out", str(runs)])
    assert result.exit_code == 0, result.output
    assert "(99.50)" in result.output
    assert (runs / "studies" / "mine" / "smoke" / "table.md").exists()


def test_the_command_lists_the_studies_and_tells_of_bad_names():
    listed = CliRunner().invoke(main, ["reproduce", "--list"])
    assert all(name in listed.output for name in studies.names())
    for arguments in (["adr/tabel1"], [], ["adr/table1", "--profile", "smok"]):
        result = CliRunner().invoke(main, ["reproduce", *arguments])
        assert result.exit_code == 2 and "Traceback" not in result.output


def test_no_value_is_not_zero():
    cell = studies.Cell([math.nan])
    assert cell.ours == "none found"
    assert cell.to_dict()["values"] == [None]


def test_results_are_read_back_unless_the_study_has_changed(write, runs):
    changes = {"seeds": [0], "columns": {"clean": STUDY["columns"]["clean"]}, "paper": {}}
    results = reproduce(write(**changes), runs)
    path = runs / "studies" / "mine" / "smoke" / "results.json"
    assert studies.Results.read(path).to_dict() == results.to_dict()
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "title": "Another title"}))
    with pytest.raises(InputError, match="another version"):
        studies.Results.read(path)
    for moved in ({"columns": {"clean": {"attack": "fgsm"}}}, {"paper": {"AT": {"clean": 1.0}}}):
        path.write_text(json.dumps({**kept, **moved}))
        with pytest.raises(InputError, match="another version"):
            studies.Results.read(path)
    kept["cells"]["AT"]["clean"]["files"] = ["plane.png"]
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match=r"plane\.png, which is not beside it"):
        studies.Results.read(path)
    path.write_text("<html>")
    with pytest.raises(InputError, match="holds no results"):
        studies.Results.read(path)
    assert studies.Cell.from_dict(results.cells["AT"]["clean"].to_dict()) == results.cells["AT"]["clean"]
