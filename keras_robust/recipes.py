"""Recipes: everything a training run needs, as data with profiles."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from keras_robust.errors import InputError, require, unknown_name
from keras_robust.packaged import packaged
from keras_robust.schema import check_options

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_robust.data import Arrays
    from keras_robust.defenses import Defense

PROFILES = ("paper", "laptop", "smoke")


def names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.stem for path in packaged("recipes").glob("*.yaml"))


def describe(name: str) -> str:
    """One sentence on a packaged recipe."""
    return str(_read(_path(name)).get("description", ""))


def load(
    name: str | Path, profile: str = "laptop", overrides: Mapping[str, Any] | Iterable[str] = ()
) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a packaged recipe's name, or the path of a YAML file.
        profile: "paper" (the paper's schedule), "laptop" (two CPU cores) or "smoke" (seconds).
        overrides: `{"defense.beta": 3.0}` or `["defense.beta=3.0"]`, applied last.

    Raises:
        InputError: unknown name, profile or key, or a value of a wrong type; it names file, key and value.

    >>> load("at_digits", profile="smoke").dataset
    'digits'
    """
    path = _path(name)
    text = _read(path)
    base = {key: value for key, value in text.items() if key != "profiles"}
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    settings = _merged(base, text.get("profiles", {}).get(profile, {}))
    for key, value in _pairs(overrides):
        _set(settings, key, value, path)
    check_options(f"{path.name}", settings, Recipe, supplied=("name", "profile"))
    recipe = Recipe(name=path.stem, profile=profile, **settings)
    recipe.check()
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
        threat: `{"norm": ..., "eps": ..., "step_size": ...}`, for the adversary and for evaluation.
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

    def check(self) -> None:
        """Check every nested setting against what it configures."""
        from keras_robust import data
        from keras_robust.attacks import attacks
        from keras_robust.defenses import defenses
        from keras_robust.models import architectures
        from keras_robust.schedules import schedules

        data.info(self.dataset)
        require(self.epochs >= 1, f"{self.name}: epochs must be >= 1. Received: {self.epochs}.")
        self._check("architecture", architectures, supplied=("input_shape", "num_classes", "dtype"))
        self._check("defense", defenses, supplied=("classifier", "adversary", "terms", "seed", "name"))
        self._check("schedule", schedules, supplied=("learning_rate", "steps", "epochs"))
        if self.adversary is not None:
            self._check("adversary", attacks, supplied=("eps", "norm"), optional=("eps", "norm"))
        check_options(f"{self.name}: threat", self.threat, _threat)
        check_options(f"{self.name}: guard", self.guard, _guard)
        if self.paper is not None:
            check_options(f"{self.name}: paper", self.paper, _paper)

    def build(self) -> Defense:
        """The compiled defense, with freshly initialised weights that depend on the seed only."""
        import keras

        from keras_robust.defenses import defenses

        keras.utils.set_random_seed(self.seed)
        defense_class, options = self._named("defense", defenses)
        defense = defense_class(
            self.classifier(dtype=self.precision), self._adversary(), seed=self.seed, **options
        )
        defense.compile(optimizer=self._optimizer(), metrics=["accuracy"])
        return defense

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

    def callbacks(self, directory: Path | str | None = None, best: float = -1.0) -> list[Any]:
        """The robust guard, and with a directory a log and a checkpoint in it.

        Args:
            directory: where `best.weights.h5`, `history.csv` and `checkpoint.weights.h5` go; by default
                the guard writes into a temporary directory.
            best: score of the guard so far, when a run is resumed.
        """
        import tempfile

        import keras

        from keras_robust.defenses.callbacks import Checkpoint, RobustGuard, Stopwatch

        where = Path(directory or tempfile.mkdtemp(prefix="keras_robust_"))
        held_out = self._splits[1].as_float()
        guard = RobustGuard(
            *held_out,
            white_box=self._guard_attack("white_box"),
            black_box=self._guard_attack("black_box"),
            every=self.guard.get("every", 1),
            path=where / "best.weights.h5",
            best=best,
        )
        if directory is None:
            return [guard]
        log = keras.callbacks.CSVLogger(where / "history.csv", append=True)
        return [guard, Stopwatch(), log, Checkpoint(where / "checkpoint.weights.h5")]

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

    def _named(self, key: str, registry: Any) -> tuple[Any, dict[str, Any]]:
        setting = getattr(self, key)
        return registry[setting["name"]], {name: v for name, v in setting.items() if name != "name"}

    def _check(self, key: str, registry: Any, supplied: Iterable[str], optional: Iterable[str] = ()) -> None:
        setting = getattr(self, key)
        require("name" in setting, f"{self.name}: {key} lacks its name. Valid: {', '.join(registry)}.")
        target, options = self._named(key, registry)
        options = {name: value for name, value in options.items() if name not in set(optional)}
        check_options(f"{self.name}: {key} {setting['name']}", options, target, supplied)

    def _attack(self, setting: Mapping[str, Any]) -> Any:
        from keras_robust import attacks

        return attacks.get({"eps": self.threat["eps"], "norm": self.threat["norm"], **setting})

    def _adversary(self) -> Any:
        return None if self.adversary is None else self._attack(self.adversary)

    def _guard_attack(self, which: str) -> Any:
        setting = self.guard.get(which)
        return None if setting is None else self._attack(setting)

    def _optimizer(self) -> Any:
        import keras

        from keras_robust.schedules import schedules

        schedule, options = self._named("schedule", schedules)
        config = {name: value for name, value in self.optimizer.items() if name != "name"}
        rate = config.pop("learning_rate", 0.001)
        config["learning_rate"] = schedule(rate, self.steps_per_epoch, self.epochs, **options)
        try:
            reference = keras.optimizers.get(self.optimizer["name"])
            return type(reference)(**config)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.name}: optimizer {self.optimizer}: {error}") from error


def _threat(eps: float, norm: str = "linf", step_size: float | None = None) -> None:
    """What a recipe may say of its threat model."""


def _guard(
    white_box: dict[str, Any] | None = None, black_box: dict[str, Any] | None = None, every: int = 1
) -> None:
    """What a recipe may say of its guard."""


def _paper(source: str, results: dict[str, Any]) -> None:
    """What a recipe may quote of its paper."""


def _path(name: str | Path) -> Path:
    if str(name) in names():
        return packaged("recipes") / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise unknown_name("recipe", str(name), names())


def _read(path: Path) -> dict[str, Any]:
    try:
        text = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error
    require(isinstance(text, dict), f"{path}: a recipe is a mapping of keys to values. Received: {text!r}.")
    return text


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; a mapping with another `name` replaces the old one whole."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name") in (None, old.get("name")):
            merged[key] = _merged(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _pairs(overrides: Mapping[str, Any] | Iterable[str]) -> Iterable[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return overrides.items()
    return [_pair(text) for text in overrides]


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    require(bool(separator and key), f"An override is key=value, for example epochs=3. Received: {text!r}.")
    return key, yaml.safe_load(value)


def _set(settings: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *parents, last = key.split(".")
    if parents and parents[0] not in _KEYS:
        raise unknown_name(f"key of {path.name}", parents[0], _KEYS)
    place = settings
    for parent in parents:
        place = place.setdefault(parent, {})
        require(isinstance(place, dict), f"{path.name}: {key}: {parent} is {place!r} and has no keys.")
    place[last] = value


_KEYS = [item.name for item in fields(Recipe) if item.name not in ("name", "profile")]
