"""Recipes: everything a training run needs, as data with profiles."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from keras_robust.errors import InputError, require, require_above_zero, require_choice, unknown_name
from keras_robust.files import parse_yaml, read_yaml
from keras_robust.packaged import packaged
from keras_robust.plain import plain
from keras_robust.registry import Registry
from keras_robust.schema import check_options
from keras_robust.zoo.cards import check_aims

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_robust.data import Arrays
    from keras_robust.defenses import Defense

PROFILES = ("paper", "laptop", "smoke")
SAID = ("name", "profile", "description", "source", "paper")  # of a recipe, without effect on the weights


def names() -> list[str]:
    """Names of the packaged recipes.

    >>> "at_mnist" in names()
    True
    """
    return sorted(path.stem for path in packaged("recipes").glob("*.yaml"))


def describe(name: str) -> str:
    """One sentence on a packaged recipe.

    Raises:
        InputError: an unknown name.

    >>> describe("trades_mnist")
    'CNN-4C3F on MNIST, TRADES.'
    """
    return str(read(_path(name)).get("description", ""))


def load(
    name: str | Path, profile: str = "laptop", overrides: Mapping[str, Any] | Iterable[str] = ()
) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a packaged recipe's name, or the path of a YAML file; a run's own recipe.yaml, in which its
            profile is laid in already, says its name and profile itself.
        profile: "paper" (the paper's schedule), "laptop" (two CPU cores) or "smoke" (seconds).
        overrides: `{"defense.beta": 3.0}` or `["defense.beta=3.0"]`, applied last.

    Raises:
        InputError: unknown name, profile or key, or a value of a wrong type; it names file, key and value.

    >>> load("at_digits", profile="smoke").dataset
    'digits'
    """
    path = _path(name)
    text = read(path)
    own = {"name": text.pop("name", path.stem), "profile": text.pop("profile", profile)}
    check_options(path.name, own, _own)
    for one in (profile, own["profile"]):
        require_choice("profile", one, PROFILES)
    base = {key: value for key, value in text.items() if key != "profiles"}
    settings = merged(base, _changes(text, profile, path))
    for key, value in _pairs(overrides):
        _set(settings, key, value, path)
    check_options(f"{path.name}", settings, Recipe, supplied=("name", "profile"))
    recipe = Recipe(**own, **settings)
    recipe.check(path.name)
    return recipe


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. Nested settings are mappings with the `name` of what they configure.

    Attributes:
        name, profile: where it comes from.
        description: one sentence.
        source: paper, section or table.
        dataset: a name in `keras_robust.data.datasets`.
        architecture, adversary, defense, optimizer, schedule: `{"name": ..., **options}`.
        threat: `{"norm": ..., "eps": ..., "step_size": ...}`; norm and eps are also the adversary's and the
            guard's, the step size is that of evaluation.
        batch_size, epochs, seed, precision: of the run; precision is a Keras dtype policy.
        augment: augmentations, applied in order.
        examples: train on so many examples only; null: all.
        held_out: training images kept back for the guard.
        guard: attacks on the held-out images: `white_box`, `black_box`, `every`.
        paper: `{"results": ..., "source": ...}`, the paper's accuracies in percent by attack, for the card.
    """

    name: str
    profile: str
    description: str
    source: str
    dataset: str
    architecture: dict[str, Any]
    defense: dict[str, Any]
    threat: dict[str, Any]
    optimizer: dict[str, Any]
    batch_size: int
    epochs: int
    adversary: dict[str, Any] | None = None
    schedule: dict[str, Any] = field(default_factory=lambda: {"name": "constant"})
    augment: list[Any] = field(default_factory=list)
    precision: str = "float32"
    seed: int = 0
    examples: int | None = None
    held_out: int = 1000
    guard: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] | None = None

    def check(self, where: str | None = None) -> None:
        """Check every setting against what it configures; errors begin with where it stands."""
        where = where or self.name
        check_aims(where, self.name, self.threat, self.paper)
        with _said_of(where):
            self._check_values()
            self._check_parts()
            self._check_attacks()

    def build(self) -> Defense:
        """The compiled defense, with freshly initialised weights that depend on the seed only."""
        import keras

        defense = self.uncompiled()
        # Not by name: Keras would make the metric inside the first trace of a step, and trace it again.
        accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
        defense.compile(optimizer=self._optimizer(self.steps_per_epoch), metrics=[accuracy])
        return defense

    def uncompiled(self) -> Defense:
        """The same before it is compiled, which needs no data: the schedule alone depends on their number."""
        from keras_robust.defenses import defenses

        # Keras draws its seeds from it; its set_random_seed would also drop all kernels of TensorFlow.
        random.seed(self.seed)
        name, options = _named(self.defense)
        classifier = self.classifier(dtype=self.precision)
        return defenses[name](classifier, self._adversary(), seed=self.seed, **options)

    def classifier(self, dtype: str = "float32") -> keras.Model:
        """The untrained classifier."""
        from keras_robust import data, models

        info = data.info(self.dataset)
        options = {"input_shape": info.image_shape, "num_classes": info.num_classes, **self.architecture}
        return models.build(dtype=dtype, **options)

    def data(self, initial_step: int = 0) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """The training pipeline (without the held-out images) from a step on, and the test set."""
        from keras_robust import data

        train = data.pipeline(
            self._splits[0],
            self.batch_size,
            seed=self.seed,
            initial_step=initial_step,
            augment=self.augment,
        )
        return train, data.batches(data.load(self.dataset, "test", raw=True), 256)

    def callbacks(
        self, directory: Path | str | None = None, best: tuple[float, float] = (-1.0, -1.0)
    ) -> list[Any]:
        """The robust guard, and with a directory a log and a checkpoint in it.

        Args:
            directory: where `best.weights.h5`, `history.csv` and `checkpoint.weights.h5` go; by default
                nowhere, and the classifier ends with the weights that the guard kept.
            best: the guard's score so far, when a run is resumed: smallest accuracy, clean accuracy.
        """
        from keras_robust.defenses.callbacks import Checkpoint, EpochLog, RobustGuard, Stopwatch

        where = None if directory is None else Path(directory)
        held_out = self._splits[1].as_float()
        guard = RobustGuard(
            *held_out,
            white_box=self._guard_attack("white_box"),
            black_box=self._guard_attack("black_box"),
            every=self.guard.get("every", 1),
            epochs=self.epochs,
            path=where and where / "best.weights.h5",
            best=best,
        )
        if where is None:
            return [guard]
        log, checkpoint = EpochLog(where / "history.csv"), Checkpoint(where / "checkpoint.weights.h5")
        return [guard, Stopwatch(), log, checkpoint]

    @property
    def digest(self) -> str:
        """What tells two trained models apart: a hash of all settings that decide the weights."""
        settings = {key: value for key, value in self.to_dict().items() if key not in SAID}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        from keras_robust import data

        return data.steps_per_epoch(self._splits[0], self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data, which `from_dict` takes back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Recipe:
        """The recipe of `to_dict`, checked again."""
        check_options("recipe", settings, cls)
        recipe = cls(**settings)
        recipe.check()
        return recipe

    @cached_property
    def _splits(self) -> tuple[Arrays, Arrays]:
        from keras_robust import data

        arrays = data.load(self.dataset, "train", examples=self.examples, seed=self.seed, raw=True)
        return data.holdout(arrays, self.held_out, seed=self.seed)

    def _check_values(self) -> None:
        from keras_robust.models.assembly import require_policy

        for key in ("epochs", "batch_size"):
            value = getattr(self, key)
            require(value >= 1, f"{key} must be >= 1. Received: {value}.")
        require(0 <= self.seed < 2**32, f"seed must be in 0..2**32 - 1. Received: {self.seed}.")
        with _said_of("precision"):
            require_policy(self.precision)

    def _check_parts(self) -> None:
        from keras_robust import data
        from keras_robust.defenses import defenses
        from keras_robust.models import architectures
        from keras_robust.schedules import schedules

        shape = data.info(self.dataset).image_shape
        if self.augment:
            from keras_robust.data import augmentation  # with keras-cv, which takes a while

            with _said_of("augment"):
                augmentation.build(self.augment, shape)
        supplied = ("input_shape", "num_classes", "dtype")
        _check("architecture", self.architecture, architectures, supplied, optional=("synchronized",))
        _check("defense", self.defense, defenses, ("classifier", "adversary", "terms", "seed", "name"))
        _check("schedule", self.schedule, schedules, ("learning_rate", "steps", "epochs"))
        _check("optimizer", self.optimizer, _optimizers(), ("name",))
        self._optimizer(steps=1000)

    def _check_attacks(self) -> None:
        from keras_robust.attacks import attacks
        from keras_robust.defenses.requirements import check_adversary
        from keras_robust.threat import ThreatModel

        with _said_of("threat"):
            ThreatModel(self.threat["norm"], self.threat["eps"])
            step_size = self.threat.get("step_size")
            if step_size is not None:
                require_above_zero(step_size=step_size)
        check_options("guard", self.guard, _guard)
        every = self.guard.get("every", 1)
        require(every >= 1, f"guard: every must be >= 1. Received: {every}.")
        settings = {"adversary": self.adversary}
        settings |= {f"guard: {which}": self.guard.get(which) for which in ("white_box", "black_box")}
        for where, setting in settings.items():
            if setting is not None:
                _check(where, setting, attacks, optional=("eps", "norm"))
                with _said_of(where):
                    _check_attack(self._attack(setting))
        if self.adversary is not None:
            with _said_of("adversary"):
                check_adversary(self._adversary())

    def _attack(self, setting: Mapping[str, Any]) -> Any:
        from keras_robust import attacks

        return attacks.get({"eps": self.threat["eps"], "norm": self.threat["norm"], **setting})

    def _adversary(self) -> Any:
        return None if self.adversary is None else self._attack(self.adversary)

    def _guard_attack(self, which: str) -> Any:
        setting = self.guard.get(which)
        return None if setting is None else self._attack(setting)

    def _optimizer(self, steps: int) -> Any:
        from keras_robust.schedules import schedules

        schedule, shape = _named(self.schedule)
        name, options = _named(self.optimizer)
        rate: Any = options.get("learning_rate")
        with _said_of("optimizer"):
            require_above_zero(learning_rate=rate)
        options["learning_rate"] = schedules[schedule](rate, steps, self.epochs, **shape)
        try:
            return _optimizers()[name](**options)
        except (ValueError, TypeError) as error:
            raise InputError(f"optimizer {self.optimizer}: {error}") from error


@cache
def _optimizers() -> Registry[Any]:
    """Keras' optimizers by their names in lower case, without those that wrap others."""
    import keras

    found: Registry[Any] = Registry("optimizer")
    for name, entry in vars(keras.optimizers).items():
        if inspect.isclass(entry) and "learning_rate" in inspect.signature(entry).parameters:
            found.register(name.lower())(entry)
    return found


def _named(setting: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return setting["name"], {key: value for key, value in setting.items() if key != "name"}


def _check(
    where: str,
    setting: Mapping[str, Any],
    registry: Registry[Any],
    supplied: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> None:
    require("name" in setting, f"{where} lacks its name. Valid: {', '.join(registry)}.")
    name, options = _named(setting)
    given = {key: value for key, value in options.items() if key not in set(optional)}
    with _said_of(where):
        target = registry[name]
    check_options(f"{where} {name}", given, target, (*supplied, *optional))


@contextmanager
def _said_of(where: str) -> Iterator[None]:
    """Put `where` before the message of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_attack(attack: Any) -> None:
    """Refuse what no image of a dataset can be trained or judged by."""
    targeted = getattr(attack, "targeted", False)
    require(not targeted, "there are no targets. Valid: an attack that is not targeted.")
    require(attack.bounds == (0, 1), f"images are in bounds (0, 1). Received: bounds={attack.bounds}.")


def _guard(
    white_box: dict[str, Any] | None = None, black_box: dict[str, Any] | None = None, every: int = 1
) -> None:
    """What a recipe may say of its guard."""


def _profiles(
    paper: dict[str, Any] | None = None,
    laptop: dict[str, Any] | None = None,
    smoke: dict[str, Any] | None = None,
) -> None:
    """Which profiles a recipe may have."""


def _own(name: str, profile: str) -> None:
    """What a run's recipe says of itself."""


def _changes(text: Mapping[str, Any], profile: str, path: Path) -> dict[str, Any]:
    """What a profile changes."""
    profiles = text.get("profiles") or {}
    require(isinstance(profiles, dict), f"{path.name}: profiles must be a mapping. Received: {profiles!r}.")
    check_options(f"{path.name}: profiles", profiles, _profiles)
    return profiles.get(profile) or {}


def _path(name: str | Path) -> Path:
    if str(name) in names():
        return packaged("recipes") / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise unknown_name("recipe", str(name), names())


def read(path: Path) -> dict[str, Any]:
    """The unchecked text of a recipe.

    Raises:
        InputError: it cannot be read, or is not a mapping in YAML.
    """
    text = read_yaml(path)
    require(isinstance(text, dict), f"{path}: a recipe is a mapping of keys to values. Received: {text!r}.")
    return text


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; a mapping with another `name` replaces the old one whole."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name") in (None, old.get("name")):
            result[key] = merged(old, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _pairs(overrides: Mapping[str, Any] | Iterable[str]) -> Iterable[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return overrides.items()
    return [_pair(text) for text in overrides]


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    require(bool(separator and key), f"An override is key=value, for example epochs=3. Received: {text!r}.")
    try:
        return key, parse_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"The value of {key} is not valid YAML: {error}. Received: {value!r}.") from error


def _set(settings: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *parents, last = key.split(".")
    if parents and parents[0] not in _KEYS:
        raise unknown_name(f"key of {path.name}", parents[0], _KEYS)
    place = settings
    for parent in parents:
        place = place.setdefault(parent, {})
        require(isinstance(place, dict), f"{path.name}: {key}: {parent} is {place!r} and has no keys.")
    place[last] = plain(value)


_KEYS = [item.name for item in fields(Recipe) if item.name not in ("name", "profile")]
