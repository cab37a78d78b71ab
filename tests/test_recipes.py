"""Recipes: every packaged one, how profiles and overrides are laid over it, and what is told of bad ones."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import yaml

from keras_robust import data, recipes
from keras_robust.errors import InputError
from keras_robust.packaged import packaged
from keras_robust.recipes import PROFILES, Recipe

BASE = yaml.safe_load((packaged("recipes") / "at_digits.yaml").read_text())


@pytest.fixture
def write(tmp_path):
    """Writes a recipe, at_digits with changes, and gives its path."""

    def build(text=None, **changes):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**copy.deepcopy(BASE), **changes}) if text is None else text)
        return path

    return build


def message(*arguments, **options):
    with pytest.raises(InputError) as error:
        recipes.load(*arguments, **options)
    return str(error.value)


# Every packaged recipe


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", recipes.names())
def test_every_profile_of_every_recipe_is_sound_and_survives_being_written(name, profile):
    recipe = recipes.load(name, profile)
    assert (recipe.name, recipe.profile) == (name, profile)
    settings = yaml.safe_load(yaml.safe_dump(recipe.to_dict()))
    assert Recipe.from_dict(settings) == recipe


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is_and_where_it_comes_from(name):
    recipe = recipes.load(name, "paper")
    assert recipe.description.endswith(".") and recipe.source
    assert recipes.describe(name) == recipe.description


@pytest.fixture(scope="module")
def firsts():
    """The first recipe with data of each defense and architecture."""
    return {}


@pytest.mark.parametrize("name", recipes.names())
def test_every_smoke_profile_builds_and_takes_a_step(name, firsts, pytestconfig):
    recipe = recipes.load(name, "smoke")
    try:
        train, test = recipe.data()
    except InputError as error:
        pytest.skip(str(error))
    kind = recipe.defense["name"], recipe.architecture["name"]
    if firsts.setdefault(kind, name) != name and not pytestconfig.getoption("whole"):
        pytest.skip(f"slow: runs with --whole, and like {firsts[kind]}")
    defense = recipe.build()
    defense.run_eagerly = True  # one step is sooner taken than traced
    before = defense.classifier.get_weights()
    logs = defense.fit(train.take(1), shuffle=False, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert any((old != new).any() for old, new in zip(before, defense.classifier.get_weights(), strict=True))
    assert int(train.cardinality()) == recipe.steps_per_epoch
    images, labels = next(iter(test))
    info = data.info(recipe.dataset)
    assert images.shape[1:] == info.image_shape and int(labels.numpy().max()) < info.num_classes
    (guard,) = recipe.callbacks()
    assert len(guard.images) == recipe.held_out


def test_the_seed_determines_the_weights():
    def weights(seed):
        recipe = recipes.load("at_digits", "smoke", {"seed": seed})
        return np.concatenate([weight.ravel() for weight in recipe.build().classifier.get_weights()])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


def test_held_out_images_are_not_trained_on():
    recipe = recipes.load("at_digits", "smoke", ["examples=100", "held_out=40", "batch_size=60"])
    (batch,) = recipe.data()[0]
    trained = {image.tobytes() for image in batch[0].numpy()}
    held_out = {image.tobytes() for image in recipe.callbacks()[0].images}
    assert len(trained) == 60 and len(held_out) == 40 and not trained & held_out


# Profiles and overrides


def test_numbers_of_numpy_are_written_as_numbers():
    changed = {"threat.eps": np.float64(0.1), "schedule": {"name": "drops", "at": [np.int64(3)]}}
    recipe = recipes.load("at_digits", "smoke", changed)
    written = yaml.safe_load(yaml.safe_dump(recipe.to_dict()))
    assert written["threat"]["eps"] == 0.1 and written["schedule"]["at"] == [3]


def test_a_profile_is_laid_over_the_rest(write):
    path = write(
        profiles={
            "laptop": {
                "adversary": {"steps": 3},
                "optimizer": {"name": "sgd", "learning_rate": 0.5},
                "guard": {"white_box": {"name": "fgsm"}, "every": 2},
                "epochs": 2,
            }
        }
    )
    paper, laptop, smoke = (recipes.load(path, profile) for profile in PROFILES)
    assert laptop.adversary == {**paper.adversary, "steps": 3}, "the same name: merged"
    assert laptop.optimizer == {"name": "sgd", "learning_rate": 0.5}, "another name: replaced whole"
    assert laptop.guard == {**paper.guard, "white_box": {"name": "fgsm"}, "every": 2}
    assert (paper.epochs, laptop.epochs) == (BASE["epochs"], 2)
    assert smoke.to_dict() == {**paper.to_dict(), "profile": "smoke"}, (
        "a profile that is not there: no changes"
    )


def test_a_profile_can_take_something_away(write):
    path = write(
        profiles={"smoke": {"adversary": None, "guard": {"black_box": None}, "defense": {"name": "standard"}}}
    )
    recipe = recipes.load(path, "smoke")
    assert recipe.adversary is None and recipe.guard["black_box"] is None
    assert recipe.defense == {"name": "standard"}


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "epochs=3",
            "defense.clean_weight=0.5",
            "guard.white_box.steps=7",
            "schedule={name: drops, at: [1, 2]}",
        ],
        {
            "epochs": 3,
            "defense.clean_weight": 0.5,
            "guard.white_box.steps": 7,
            "schedule": {"name": "drops", "at": [1, 2]},
        },
    ],
)
def test_overrides_come_last_and_change_only_their_key(overrides):
    plain, changed = (recipes.load("at_digits", "smoke", given) for given in ((), overrides))
    expected = plain.to_dict()
    expected["epochs"] = 3
    expected["defense"]["clean_weight"] = 0.5
    expected["guard"]["white_box"]["steps"] = 7
    expected["schedule"] = {"name": "drops", "at": [1, 2]}
    assert changed.to_dict() == expected
    assert recipes.load("at_digits", "smoke") == plain, "the packaged recipe is as it was"


def test_an_override_reaches_what_is_built():
    recipe = recipes.load(
        "at_digits",
        "smoke",
        ["adversary.steps=3", "threat.eps=0.05", "optimizer.learning_rate=0.25", "schedule.name=constant"],
    )
    defense = recipe.build()
    assert (defense.adversary.steps, defense.adversary.eps) == (3, 0.05)
    assert float(defense.optimizer.learning_rate) == 0.25
    assert recipe.callbacks()[0].attacks["black_box"].eps == 0.05


def test_a_recipe_of_ones_own(write, tmp_path):
    path = write(description="Mine.", profiles={})
    for reference in (path, str(path)):
        recipe = recipes.load(reference)
        assert (recipe.name, recipe.description) == ("mine", "Mine.")
    (tmp_path / "mine.yml").write_bytes(path.read_bytes())
    assert recipes.load(tmp_path / "mine.yml") == recipe


# Bad input


@pytest.mark.parametrize("name", ["at_digit", "no/such.yaml", "at_digits.yaml", "", "."])
def test_an_unknown_recipe_is_told_with_those_there_are(name):
    text = message(name)
    assert f"Unknown recipe: {name!r}" in text and "trades_digits" in text


def test_an_unknown_profile_is_told_with_those_there_are():
    assert message("at_digits", "labtop") == (
        "Unknown profile: 'labtop'. Did you mean 'laptop'? Valid: laptop, paper, smoke."
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epoch=3", ["at_digits.yaml", "'epoch'", "Did you mean 'epochs'?"]),
        ("name=x", ["at_digits.yaml", "'name'"]),
        ("optimiser.learning_rate=1.0", ["at_digits.yaml", "'optimiser'", "'optimizer'"]),
        ("epochs=2.5", ["at_digits.yaml: epochs must be an integer. Received: 2.5"]),
        ("epochs=1e1", ["at_digits.yaml: epochs", "'1e1'", "YAML reads 1e1 as text; write 10."]),
        ("epochs=0", ["at_digits.yaml: epochs must be >= 1. Received: 0"]),
        ("batch_size=0", ["at_digits.yaml: batch_size must be >= 1. Received: 0"]),
        ("seed=-1", ["at_digits.yaml: seed must be in", "Received: -1"]),
        ("dataset=mnits", ["at_digits", "Unknown dataset: 'mnits'", "Did you mean 'mnist'?"]),
        ("dataset.split=x", ["at_digits.yaml", "dataset is 'digits' and has no keys"]),
        ("precision=float17", ["at_digits.yaml: precision", "'float17'", "mixed_bfloat16"]),
        ("precision=int32", ["at_digits.yaml: precision", "policy of floats", "'int32'"]),
        ("augment=flip", ["at_digits.yaml: augment must be a list. Received: 'flip'"]),
        (
            "augment=[flap]",
            ["at_digits.yaml: augment", "Unknown augmentation: 'flap'", "Did you mean 'flip'?"],
        ),
        ("augment=[{name: flip, rat: 1}]", ["at_digits.yaml: augment", "'flip'", "rat"]),
        ("augment=[3]", ["at_digits.yaml: augment", "Received: 3"]),
        ("architecture=small_cnn", ["at_digits.yaml: architecture must be a mapping. Received: 'small_cnn'"]),
        ("architecture={filters: 3}", ["at_digits.yaml: architecture lacks its name", "small_cnn"]),
        (
            "architecture.name=smal_cnn",
            ["at_digits.yaml: architecture", "'smal_cnn'", "Did you mean 'small_cnn'?"],
        ),
        (
            "architecture.filter=3",
            ["at_digits", "architecture small_cnn", "'filter'", "Did you mean 'filters'?"],
        ),
        ("architecture.filters=1.5", ["at_digits.yaml: architecture small_cnn: filters", "Received: 1.5"]),
        ("architecture.num_classes=3", ["at_digits", "'num_classes'"]),
        ("defense.name=tradez", ["at_digits.yaml: defense", "'tradez'", "Did you mean 'trades'?"]),
        ("defense.beta=1.0", ["at_digits", "defense adversarial_training", "'beta'", "clean_weight"]),
        (
            "defense.clean_weight=1e-1",
            ["at_digits.yaml: defense", "clean_weight", "YAML reads 1e-1", "write 0.1."],
        ),
        ("threat.norm=l3", ["at_digits.yaml: threat", "Unknown norm: 'l3'", "l2, linf"]),
        ("threat.eps=-1", ["at_digits.yaml: threat: eps", ">= 0", "-1"]),
        ("threat.epsilon=1", ["at_digits", "'epsilon'"]),
        ("threat.step_size=0", ["at_digits.yaml: threat: step_size", "> 0", "step_size=0"]),
        ("adversary.targeted=true", ["at_digits.yaml: adversary", "there are no targets"]),
        ("guard.white_box.targeted=true", ["at_digits.yaml: guard: white_box", "there are no targets"]),
        ("threat={eps: 0.1}", ["at_digits.yaml: threat lacks norm"]),
        ("adversary.name=pdg", ["at_digits.yaml: adversary", "Unknown attack: 'pdg'", "Did you mean 'pgd'?"]),
        ("adversary.step=3", ["at_digits", "adversary pgd", "'step'", "'steps'"]),
        ("adversary.restarts=3", ["at_digits.yaml: adversary: restarts does nothing in training"]),
        ("adversary.steps=0", ["at_digits.yaml: adversary", "steps must be an integer >= 1", "steps=0"]),
        ("adversary.loss=k", ["at_digits.yaml: adversary", "Unknown objective: 'k'"]),
        ("guard.white=1", ["at_digits", "guard", "'white'", "'white_box'"]),
        ("guard.white_box.name=pdg", ["at_digits.yaml: guard: white_box", "'pdg'"]),
        ("guard.black_box.queries=0", ["at_digits.yaml: guard: black_box", "queries=0"]),
        ("guard.every=0", ["at_digits.yaml: guard", "every must be >= 1"]),
        ("optimizer.learning_rate=1e-3", ["at_digits.yaml: optimizer adam: learning_rate", "write 0.001."]),
        ("optimizer.learning_rate=1e-5", ["YAML reads 1e-5 as text; write 1.0e-05."]),
        (
            "optimizer.learning_rate=-0.1",
            ["at_digits.yaml: optimizer: learning_rate must be a finite number > 0", "-0.1"],
        ),
        ("optimizer={name: adam}", ["at_digits.yaml: optimizer: learning_rate"]),
        (
            "optimizer.weight_decay=1e-4",
            ["at_digits.yaml: optimizer adam: weight_decay", "'1e-4'", "write 0.0001."],
        ),
        ("optimizer.name=sdg", ["at_digits.yaml: optimizer", "'sdg'", "Did you mean 'sgd'?"]),
        ("optimizer.momentum=0.9", ["at_digits", "optimizer adam", "'momentum'", "ema_momentum"]),
        ("optimizer.use_ema=1", ["at_digits.yaml: optimizer adam: use_ema must be true or false"]),
        ("schedule.name=drop", ["at_digits.yaml: schedule", "'drop'", "Did you mean 'drops'?"]),
        ("schedule.warmup=2.0", ["at_digits", "one_cycle.warmup", "2.0"]),
        (
            "schedule={name: drops, at: 3}",
            ["at_digits.yaml: schedule drops: at must be a list", "Received: 3"],
        ),
        ("paper={source: x, results: {clean: 120}}", ["at_digits.yaml: paper: results: clean", "120"]),
        ("adversary.bounds=[0, 2]", ["at_digits.yaml: adversary: images are in bounds (0, 1)", "(0, 2)"]),
        ("threat.eps=.inf", ["at_digits.yaml: ", "eps must be a finite number", "inf"]),
        ("epochs=[", ["epochs is not valid YAML", "'['"]),
        ("epochs", ["An override is key=value", "'epochs'"]),
        ("=3", ["An override is key=value", "'=3'"]),
    ],
)
def test_a_bad_setting_is_told_at_once_with_its_place_value_and_what_is_allowed(override, words):
    text = message("at_digits", "smoke", [override])
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "mine.yaml: not valid YAML"),
        ("a: 2020-13-45", "mine.yaml: not valid YAML"),
        ("- a\n- b", "mine.yaml: a recipe is a mapping of keys to values. Received: ['a', 'b']"),
        ("", "mine.yaml: a recipe is a mapping of keys to values. Received: None"),
        ("a: 1\na: 2", "a stands twice in one mapping"),
        ("profile: labtop", "Did you mean 'laptop'?"),
        ("name: 3", "mine.yaml: name must be text. Received: 3"),
        ("a: 1", "Unknown option of mine.yaml: 'a'"),
        ("dataset: digits", "mine.yaml lacks description, source"),
    ],
)
def test_a_file_that_is_no_recipe_is_told(write, text, words):
    assert words in message(write(text))


def test_a_file_that_is_not_text_is_told(write):
    path = write("")
    path.write_bytes(b"\xff\xfe\x00")
    assert f"Cannot read {path}" in message(path)


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ({"labtop": {}}, ["mine.yaml: profiles", "'labtop'", "Did you mean 'laptop'?"]),
        ({"smoke": 3}, ["mine.yaml: profiles: smoke must be a mapping", "Received: 3"]),
        (["smoke"], ["mine.yaml: profiles must be a mapping", "['smoke']"]),
    ],
)
def test_bad_profiles_are_told_whichever_is_asked_for(write, profiles, words):
    text = message(write(profiles=profiles), "paper")
    for word in words:
        assert word in text


def test_what_is_bad_in_one_profile_only_is_told_with_it(write):
    path = write(profiles={"smoke": {"epochs": "many"}})
    recipes.load(path, "paper")
    assert "mine.yaml: epochs must be an integer. Received: 'many'" in message(path, "smoke")


def test_settings_are_checked_when_they_are_taken_back():
    settings = recipes.load("at_digits", "smoke").to_dict()
    with pytest.raises(InputError, match="epochs must be >= 1"):
        Recipe.from_dict({**settings, "epochs": 0})
    with pytest.raises(InputError, match="Unknown option of recipe: 'epoch'"):
        Recipe.from_dict({**settings, "epoch": 0})


def test_the_digest_tells_recipes_apart_by_what_decides_the_weights():
    recipe = recipes.load("at_digits", "smoke")
    assert recipes.load("at_digits", "smoke").digest == recipe.digest
    assert replace(recipe, description="Another sentence.").digest == recipe.digest
    assert replace(recipe, seed=1).digest != recipe.digest
    assert replace(recipe, optimizer={**recipe.optimizer, "learning_rate": 0.5}).digest != recipe.digest
