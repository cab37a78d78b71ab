"""krobust transfer: what it prints and writes, and what it refuses."""

import json

import matplotlib.image
import pytest
from invoked import krobust
from small_runs import finished_run

from keras_robust import evaluation, models, recipes, zoo


@pytest.fixture(scope="module", autouse=True)
def entry(tmp_path_factory):
    """A user's zoo with the entry "mine"."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KERAS_ROBUST_ZOO", str(tmp_path_factory.mktemp("zoo")))
    zoo.save(
        models.build("small_cnn", filters=2, hidden=4), "mine", recipe=recipes.load("trades_digits", "smoke")
    )
    yield
    patch.undo()


def test_it_prints_and_writes_the_matrix(tmp_path):
    out = tmp_path / "new"
    options = ("--eps", 0.1, "--attack", "fgsm", "--examples", 40, "--seed", 3, "--out", out)
    text = krobust("transfer", finished_run(), "mine", *options)
    opened = {name: zoo.open_model(name)[0] for name in (str(finished_run()), "mine")}
    expected = evaluation.transfer(opened, "digits", "fgsm", eps=0.1, examples=40, seed=3, progress=False)
    values = json.loads((out / "transfer.json").read_text())
    assert values == expected.to_dict() and values["dataset"] == "digits"
    for accuracy in (*expected.clean, *expected.matrix.flat):
        assert f"{accuracy:.2f}" in text
    assert "fgsm on 40 examples of digits, linf eps 0.1" in text
    assert (out / "transfer.csv").read_text().startswith("made on,")
    assert matplotlib.image.imread(out / "transfer.png").std() > 0, "something is drawn"
    assert f"Wrote {out / 'transfer.json'}\n" in text and f"Wrote {out / 'transfer.png'} and " in text


def test_files_without_a_card_need_a_dataset_and_a_radius(tmp_path):
    for name in "ab":
        models.build("small_cnn", filters=2, hidden=4).save(tmp_path / f"{name}.keras")
    both = [tmp_path / f"{name}.keras" for name in "ab"]
    assert "Say which --dataset to attack" in krobust("transfer", *both, exit_code=2)
    assert "give eps" in krobust("transfer", *both, "--dataset", "digits", exit_code=2)
    text = krobust(
        "transfer", *both, "--dataset", "digits", "--eps", 0.1, "--attack", "fgsm", "--examples", 5
    )
    assert "made on" in text and "Wrote" not in text
