"""Keeping a classifier and loading it again."""

import errno
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from zoo_entries import ARCHITECTURE, CARD, IMAGES, WEIGHTS

from keras_robust import models, zoo
from keras_robust.errors import InputError
from keras_robust.evaluation import Outcome, Report, attack_named
from keras_robust.evaluation.identity import identity
from keras_robust.evaluation.naming import settings
from keras_robust.evaluation.report import Stage

THREAT = {"norm": "linf", "eps": 0.1}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small_cnn", {"filters": 2}),
        ("small_cnn", {"dtype": "bfloat16"}),
        ("small_cnn", {"dtype": "mixed_bfloat16"}),
        ("cnn_4c3f", {"filters": 2, "hidden": 4, "latent": "2C", "input_shape": (16, 16, 1)}),
        ("vgg", {"width_multiplier": 0.03, "num_classes": 3}),
        ("mlp", {}),
    ],
)
def test_what_is_loaded_is_what_was_saved(name, options):
    kept = models.build(name, **options)
    rng = np.random.default_rng(0)
    drawn = (rng.normal(0.5, 0.1, weight.shape).astype(weight.dtype) for weight in kept.get_weights())
    kept.set_weights(list(drawn))
    zoo.save(kept, "mine")
    loaded = zoo.load("mine")
    assert loaded.card == zoo.card("mine")
    assert {layer.compute_dtype for layer in loaded._flatten_layers()} == {"float32"}
    for found, expected in zip(loaded.get_weights(), kept.get_weights(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    if "dtype" not in options:
        images = rng.random((2, *loaded.input_shape[1:]), np.float32)
        np.testing.assert_array_equal(loaded(images), kept(images))


def test_weights_that_half_precision_holds_are_kept_in_it():
    whole, rounded = (models.build("vgg", width_multiplier=0.1) for _ in range(2))
    weights = [weight.astype("float16") for weight in whole.get_weights()]
    rounded.set_weights(weights)
    sizes = [card_of(name, model).size for name, model in (("whole", whole), ("half", rounded))]
    assert sizes[1] < 0.65 * sizes[0], "with what HDF5 needs for itself"
    for found, expected in zip(zoo.load("half").get_weights(), rounded.get_weights(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def card_of(name, model):
    zoo.save(model, name)
    return zoo.card(name)


def told(classifier, *attacks, threat=THREAT, **options):
    """A report of 200 examples under attacks of these names."""
    rows = np.arange(200)
    outcomes = {"clean": Outcome((rows >= 1) & (rows < 195))}
    for name in attacks:
        stages = {"apgd-ce": Stage(rows < 130), "square": Stage(rows < 122)} if name == "autoattack" else {}
        said = settings(attack_named(name, threat, classifier))
        outcomes[name] = Outcome(rows < 122, said, stages=stages, counted=not name.startswith("ddn"))
    about = {"dataset": "digits", "threat": threat, "seed": 5, "batch_size": 128, **options}
    return Report(outcomes, indices=rows, **{"flags": [], **about})


def test_the_card_says_what_is_known(classifier):
    recipe = SimpleNamespace(
        name="at_digits",
        profile="smoke",
        description="A sentence.",
        dataset="digits",
        defense={"name": "trades", "beta": 6.0},
        threat={"norm": "linf", "eps": 0.3, "step_size": 0.02},
        epochs=3,
        seed=4,
        digest="0123456789abcdef",
        paper=None,
    )
    report = told(classifier, "autoattack", "ddn-100", flags=["Beware."], versions={"keras": "3.15"})
    zoo.save(classifier, "mine", recipe=recipe, report=report)
    card = zoo.card("mine")
    assert card.results == {"clean": 97.0, "autoattack": 61.0, "worst_case": 60.5}
    assert card.flags == ["Beware."]
    assert card.evaluation["stages"] == {"autoattack": {"apgd-ce": 65.0, "square": 61.0}}
    assert card.defense == "trades" and card.dataset == "digits" and card.description == "A sentence."
    assert card.threat == THREAT, "that of the report, not of the recipe"
    assert card.training["recipe"] == "at_digits" and card.training["seed"] == 4
    assert card.training["digest"] == "0123456789abcdef"
    attacks = "--attack autoattack --attack ddn-100"
    assert card.evaluation["command"] == f"krobust evaluate mine {attacks} --examples 200 --seed 5"
    assert card.architecture == ARCHITECTURE
    zoo.save(classifier, "untrained", report=report)
    assert zoo.card("untrained").threat == THREAT


def test_the_command_says_whatever_differs_from_the_card(classifier):
    wider = {"norm": "l2", "eps": 0.5, "step_size": 0.1}
    further = told(classifier, "pgd-10", threat=wider, dataset="two_moons", batch_size=64)
    card = zoo.describe(classifier, "mine", report=told(classifier, "pgd-10"), further=[further])
    assert card.evaluation["command"] == "krobust evaluate mine --attack pgd-10 --examples 200 --seed 5"
    asked = "--attack pgd-10 --dataset two_moons --batch 64 --norm l2 --eps 0.5 --step-size 0.1"
    assert card.further[0]["command"] == f"krobust evaluate mine {asked} --examples 200 --seed 5"


def test_a_further_measurement_keeps_its_warnings(classifier):
    warned = replace(told(classifier, "pgd-10"), flags=["Beware."])
    quiet = replace(warned, flags=[])
    card = zoo.describe(classifier, "mine", report=quiet, further=[warned, quiet])
    assert card.flags == [] and [row.get("flags", []) for row in card.further] == [["Beware."], []]


def test_what_no_command_repeats_has_none(classifier):
    """A name of one's own for an attack, other settings under a short name, or arrays."""
    named, unnamed = told(classifier, "pgd-10"), told(classifier, "pgd-10", dataset="")
    own = replace(named, outcomes={"mine": named.outcomes["pgd-10"]})
    other = replace(named, outcomes={"pgd-20": named.outcomes["pgd-10"]})
    for report in (own, other, unnamed):
        assert zoo.describe(classifier, "mine", report=report).evaluation["command"] is None
    zoo.save(classifier, "mine", report=own)
    assert zoo.card("mine").evaluation["command"] is None


def test_without_an_attack_there_is_no_worst_case(classifier):
    report = told(classifier)
    assert report.worst_case is None and "–" in str(list(report.table().columns[1].cells))
    assert zoo.describe(classifier, "mine", report=report).results == {"clean": 97.0}


@pytest.mark.parametrize(
    ("digests", "shard", "message"),
    [
        ({"weights": "0" * 64}, "", "mine: the report is of other weights"),
        ({"layers": "0" * 64}, "", "mine: the report is of other weights or layers"),
        ({"wrapper": "{}"}, "", "or of another variant"),
        ({}, "1/2", "mine: the report is of shard 1/2 alone"),
    ],
)
def test_a_report_of_something_else_is_refused(classifier, digests, shard, message):
    report = told(classifier, "fgsm", shard=shard, digests={**identity(classifier), **digests})
    with pytest.raises(InputError, match=message):
        zoo.save(classifier, "mine", report=report)


def test_an_entry_is_not_overwritten_unasked(entry):
    other = models.build("small_cnn", filters=2, hidden=4)
    with pytest.raises(InputError, match=r"is an entry already. Pass overwrite=True"):
        zoo.save(other, "mine")
    zoo.save(other, "mine", overwrite=True)
    np.testing.assert_array_equal(zoo.load("mine")(IMAGES), other(IMAGES))


def test_a_packaged_name_is_taken(classifier, tmp_path, monkeypatch):
    (tmp_path / "packaged" / "theirs").mkdir(parents=True)
    monkeypatch.setattr("keras_robust.zoo.saving.packaged", lambda kind: tmp_path / "packaged")
    with pytest.raises(InputError, match="theirs is a packaged entry"):
        zoo.save(classifier, "theirs")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_bad_names(classifier, name):
    with pytest.raises(InputError, match="name must be letters"):
        zoo.save(classifier, name)


def test_only_built_classifiers_are_kept(conv_classifier):
    with pytest.raises(InputError, match=r"Only a classifier built by kr.models.build"):
        zoo.save(conv_classifier, "mine")


def test_a_card_of_another_architecture_is_refused(classifier, tmp_path):
    card = zoo.describe(models.build("small_cnn", filters=3), "mine")
    with pytest.raises(InputError, match="not of the architecture on its card"):
        zoo.write(tmp_path / "run", classifier, card)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", ["keras.Model.save_weights", "keras_robust.zoo.cards.Card.write"])
def test_a_full_disk_leaves_the_old_entry(entry, classifier, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        with pytest.raises(InputError, match="No space left"):
            zoo.save(classifier, "mine", overwrite=True)
    zoo.verify("mine")
    assert sorted(path.name for path in entry.iterdir()) == [CARD, WEIGHTS]


def test_a_place_that_cannot_be_written(classifier, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"):
        zoo.save(classifier, "mine", directory=tmp_path / "file")


def test_an_unknown_variant(entry):
    with pytest.raises(InputError, match=r"Unknown variant of mine: 'imt'"):
        zoo.load("mine", variant="imt")


@pytest.mark.parametrize(
    ("adaptive", "words"),
    [
        ([{"name": "crossentropy"}], "mine: adaptive: Unknown objective: 'crossentropy'"),
        ([{"name": "margin", "confidense": 1.0}], "mine: adaptive: .*'confidense'"),
        ([{"weight": 1.0}], 'mine: adaptive: .*needs a "name"'),
    ],
)
def test_objectives_on_a_card_are_checked(entry, adaptive, words):
    values = yaml.safe_load((entry / CARD).read_text())
    (entry / CARD).write_text(yaml.safe_dump({**values, "adaptive": adaptive}))
    with pytest.raises(InputError, match=words):
        zoo.load("mine")


def test_a_loaded_classifier_brings_the_objectives_of_its_card():
    classifier = models.build("small_cnn", filters=2, hidden=4)
    object.__setattr__(classifier, "adaptive", [{"name": "margin", "confidence": 2.0}])
    zoo.save(classifier, "brings")
    assert zoo.load("brings").adaptive == [{"name": "margin", "confidence": 2.0}]
