"""Transfer: who is fooled by what was made on whom."""

import csv
import json

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from keras_robust.analysis import heat_map
from keras_robust.attacks import DDN, FGSM, PGD, RayS, Square, classify
from keras_robust.errors import InputError
from keras_robust.evaluation import Transfer, evaluate, transfer
from keras_robust.models import LatentClassifier, with_self_ensemble
from keras_robust.zoo import Card

EPS = 0.1


@pytest.fixture(scope="module")
def few(digits):
    images, labels = digits
    return images[:90], labels[:90]


@pytest.fixture(scope="module")
def pair(digits_classifier, linear, digits):
    """Two classifiers, of ridge regressions on the two halves of the pixels."""
    images, labels = digits
    wanted = np.eye(10)[labels]
    models = {}
    for name, kept in {"upper": slice(0, 48), "lower": slice(16, 64)}.items():
        inputs = np.zeros((len(images), 65))
        inputs[:, kept] = images.reshape(len(images), -1)[:, kept]
        inputs[:, 64] = 1
        weights = 10 * np.linalg.solve(inputs.T @ inputs + 100 * np.eye(65), inputs.T @ wanted)
        models[name] = linear(weights[:-1], images.shape[1:], weights[-1])
    return models


def quiet(models, source, attack="fgsm", **options):
    return transfer(models, source, attack, **{"eps": EPS, "progress": False, **options})


def test_every_image_is_shown_to_every_model(pair, few):
    images, labels = few
    found = quiet(pair, few, batch_size=40)
    clean = {name: classify(model, images) == labels for name, model in pair.items()}
    expected = np.empty((2, 2))
    for row, source in enumerate(pair.values()):
        made = FGSM(eps=EPS)(source, images, labels)
        for column, (name, target) in enumerate(pair.items()):
            expected[row, column] = 100 * (clean[name] & (classify(target, made) == labels)).mean()
    np.testing.assert_allclose(found.matrix, expected)
    np.testing.assert_allclose(found.clean, [100 * right.mean() for right in clean.values()])
    assert found.names == ("upper", "lower") and found.examples == 90
    assert (found.matrix.diagonal() < found.matrix[::-1].diagonal()).all(), "made for it, it hurts more"
    assert (found.matrix < found.clean).all()


def test_the_diagonal_is_an_evaluation(pair, few):
    found = quiet(pair, few)
    for index, model in enumerate(pair.values()):
        report = evaluate(model, few, ["fgsm"], eps=EPS, checks=False, progress=False)
        assert report.accuracy["fgsm"] == pytest.approx(found.matrix[index, index])
        assert report.accuracy["clean"] == pytest.approx(found.clean[index])


def test_images_made_on_another_model_unmask_hidden_gradients(digits_classifier, few):
    """The masked model decides as the honest one does, so what was made on that breaks it."""
    scale = keras.Sequential([keras.Input((10,)), layers.Rescaling(1e4)])
    models = {"honest": digits_classifier, "masked": LatentClassifier(digits_classifier, scale)}
    found = quiet(models, few, PGD(eps=EPS, steps=5))
    (honest, across), (back, hidden) = found.matrix
    assert honest == across and back == hidden, "they decide alike"
    assert hidden > across + 10


def test_a_seed_makes_it_repeat_and_a_subset_is_stated(pair, few):
    one, same, other = (
        quiet(pair, few, "square-20", seed=seed, examples=60, batch_size=25) for seed in (1, 1, 2)
    )
    assert one.to_dict() == same.to_dict() and one.examples == 60
    assert one.indices.tolist() != other.indices.tolist()
    images, labels = few
    chosen = (images[one.indices], labels[one.indices])
    again = quiet(pair, chosen, "square-20", seed=1, batch_size=25)
    np.testing.assert_array_equal(one.matrix, again.matrix)


def test_classifiers_that_draw_noise_repeat(pair, few):
    noisy = {name: with_self_ensemble(model, first=0.3, passes=1) for name, model in pair.items()}
    first, second = (quiet(noisy, few).to_dict() for _ in range(2))
    assert first == second


def test_the_models_are_left_as_they_were_and_attacked_in_float32(build_conv_classifier, few):
    images, labels = few
    models = {"one": build_conv_classifier(), "two": build_conv_classifier()}
    before = [value.copy() for model in models.values() for value in model.get_weights()]
    found = quiet(models, (images, labels % 5), "pgd-2")
    after = [value for model in models.values() for value in model.get_weights()]
    for left, right in zip(before, after, strict=True):
        np.testing.assert_array_equal(left, right)
    assert np.ptp(found.matrix) == 0 and np.ptp(found.clean) == 0, "they are the same model"


def with_card(model, **threat):
    carded = keras.models.clone_model(model)
    carded.set_weights(model.get_weights())
    object.__setattr__(carded, "card", Card("mine", {"name": "mlp"}, threat=threat))
    return carded


def test_the_cards_say_what_is_left_open(pair, few):
    upper = with_card(pair["upper"], norm="linf", eps=0.05, step_size=0.01)
    lower = with_card(pair["lower"], norm="linf", eps=0.05, step_size=0.02)
    found = transfer({"a": upper, "b": lower}, few, "pgd-2", examples=5, progress=False)
    assert found.threat == {"norm": "linf", "eps": 0.05}
    assert [found.options[name]["step_size"] for name in "ab"] == [0.01, 0.02], "each card has its own"
    wider = with_card(pair["lower"], norm="linf", eps=0.2)
    with pytest.raises(InputError, match=r"different threat models: give norm and eps.*b: linf eps 0.2"):
        transfer({"a": upper, "b": wider}, few, "fgsm", progress=False)
    assert transfer({"a": upper, "b": wider}, few, "fgsm", eps=0.1, progress=False).threat["eps"] == 0.1


@pytest.mark.parametrize("attack", ["rays-60", RayS(queries=60), RayS(eps=0.05, queries=60)])
def test_a_minimum_norm_attack_looks_inside_the_ball(pair, few, attack):
    found = quiet(pair, few, attack, examples=30)
    radius = 0.05 if getattr(attack, "eps", None) == 0.05 else EPS
    assert found.options["upper"]["eps"] == radius and found.attack == "rays-60"
    chosen = few[0][found.indices], few[1][found.indices]
    made = RayS(eps=radius, queries=60)(pair["upper"], *chosen)
    assert abs(made - chosen[0]).max() <= EPS + 1e-6
    assert found.matrix[0, 0] == pytest.approx(100 * (classify(pair["upper"], made) == chosen[1]).mean())


def test_what_is_written_is_what_was_found(pair, few, tmp_path):
    found = quiet(pair, few, {"mine": FGSM(eps=EPS)}, seed=4)
    values = json.loads(found.to_json(tmp_path / "new" / "t.json").read_text())
    assert values == found.to_dict()
    assert [[values["accuracy"][row][column] for column in pair] for row in pair] == found.matrix.tolist()
    assert list(values["clean"].values()) == found.clean.tolist()
    assert (values["attack"], values["seed"], values["examples"]) == ("mine", 4, 90)
    assert {"keras", "tensorflow", "numpy"} <= values["versions"].keys()
    header, clean, *rows = csv.reader(found.to_csv(tmp_path / "t.csv").open())
    assert header == ["made on", "upper", "lower"] and clean[0] == "clean"
    assert [row[0] for row in rows] == ["upper", "lower"]
    assert [[float(value) for value in row[1:]] for row in (clean, *rows)] == [
        found.clean.tolist(),
        *found.matrix.tolist(),
    ]


def test_a_heat_map_is_drawn_with_its_numbers_beside_it(tmp_path):
    def drawn(matrix, name):
        threat = {"norm": "linf", "eps": EPS}
        found = Transfer(("a", "b"), np.array(matrix), np.array([99.0, 98.0]), "pgd-40", threat, np.arange(9))
        path = heat_map(found, tmp_path / name)
        assert path.with_suffix(".csv").read_text() == found.to_csv(tmp_path / "again.csv").read_text()
        return matplotlib.image.imread(path)

    dark, light = drawn([[0.0, 0.0], [0.0, 0.0]], "dark.png"), drawn([[100.0, 100.0]] * 2, "light.png")
    assert light[..., :3].mean() > dark[..., :3].mean() + 0.1
    with pytest.raises(InputError, match=r"ends in \.png"):
        heat_map(None, tmp_path / "map.pdf")


def build(shape, classes, activation=None):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(classes, activation)])


def two_inputs():
    images = [keras.Input((8, 8, 1)) for _ in range(2)]
    return keras.Model(images, layers.Dense(10)(layers.Flatten()(layers.Add()(images))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {}}, "Give two or more models by name"),
        ({"models": ["at_mnist"]}, "Give two or more models by name"),
        ({"second": None}, "Give two or more models by name"),
        ({"second": "at_digits"}, "must be a built keras.Model. Received: 'at_digits'"),
        ({"second": keras.Sequential([layers.Dense(3)])}, "must be a built keras.Model"),
        ({"second": two_inputs()}, "must have one input and one output"),
        ({"seed": -1}, "seed must be an integer >= 0. Received: -1"),
        ({"seed": 1.5}, "seed must be an integer >= 0. Received: 1.5"),
        ({"second": build((8, 8, 3), 10)}, "a: (8, 8, 1) to 10; b: (8, 8, 3) to 10"),
        ({"second": build((8, 8, 1), 5)}, "the same number of classes"),
        ({"second": build((8, 8, 1), 10, "softmax")}, "outputs probabilities where logits"),
        ({"eps": None}, "give eps for linf, for example eps=8/255"),
        ({"norm": "l3"}, "Unknown norm: 'l3'"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1. Received: batch_size=0"),
        ({"examples": 91}, "examples must be in 1..90. Received: 91"),
        ({"examples_from": "mnits"}, "Unknown dataset: 'mnits'"),
        ({"attack": "clean"}, "Give one attack. Received: clean"),
        ({"attack": ["fgsm", "pgd-2"]}, "Give one attack. Received: fgsm, pgd-2"),
        ({"attack": "pdg-40"}, "Unknown attack: 'pdg-40'. Did you mean"),
        ({"attack": Square(eps=0.3)}, "square-5000 leaves the threat model, linf eps 0.1"),
        ({"attack": PGD(eps=0.05, norm="l2")}, "leaves the threat model, linf eps 0.1: it attacks in l2"),
        ({"attack": DDN()}, "leaves the threat model"),
    ],
)
def test_bad_arguments_are_told(digits_classifier, few, change, words):
    models = {"a": digits_classifier, "b": change.pop("second", digits_classifier)}
    models = {name: model for name, model in models.items() if model is not None}
    arguments = {"models": models, "examples_from": few, "attack": "fgsm", "eps": EPS, **change}
    with pytest.raises(InputError) as error:
        transfer(**arguments, progress=False)
    assert words in str(error.value)
