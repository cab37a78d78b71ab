"""Cards: what is known of a kept classifier, as checked data."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from keras_robust.errors import is_finite, require
from keras_robust.files import read_yaml, write_text
from keras_robust.schema import check_options

CARD = "card.yaml"
WORST_CASE = "worst_case"
URL_STARTS = ("http://", "https://", "file://")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Pin(NamedTuple):
    """What a card says of one of its files.

    Attributes:
        card: the card's name.
        file: the file's name beside the card.
        sha256, size: of its content; size in bytes.
        url: where it is fetched from if it is not beside the card.
    """

    card: str
    file: str
    sha256: str
    size: int
    url: str | None


@dataclass(frozen=True)
class Card:
    """What is known of a kept classifier. Plain data: nothing in it is imported or evaluated.

    Attributes:
        name: its name in the zoo.
        architecture: `{"name", "input_shape", "num_classes", **options}`, what `models.build` rebuilds it of.
        description: one sentence.
        dataset: a name in `keras_robust.data.datasets`.
        defense: a name in `keras_robust.defenses.defenses`.
        threat: `{"norm", "eps", "step_size"}`, eps and step size in the units of the images.
        adaptive: configs of the objectives that an attacker who knows the defense climbs.
        training: `{"recipe", "profile", "epochs", "seed", "digest", "seconds"}`; the digest is the recipe's.
        results: accuracy in percent by attack; "clean" without one, "worst_case" under all of them.
        evaluation: `{"examples", "seed", "versions", "stages", "command"}`; the command repeats `results`,
            and `stages` has the accuracy after each stage of an attack such as AutoAttack.
        further: measurements on other sets of examples, each `{"examples", "results", "command", "flags"}`.
        flags: warnings of the masking checks, of the evaluation that gave `results`.
        paper: `{"results", "source"}`, the paper's figures in percent by attack, and where they stand.
        companions: models beside the classifier, such as a discriminator, by kind, each
            `{"architecture", "sha256", "size", "url"}`.
        variants: ways to use the classifier by name, the first the default: null is the classifier as it is,
            otherwise `{"wrapper": {"name": ..., **options}, "results", "examples", "command", "flags"}`, a
            name in `models.wrappers` and what `evaluate` found of it.
        detectors: detectors of adversarial inputs that were fit to it, by name, each
            `{"sha256", "size", "url", "results"}`; `results` as `detection.DetectionMetrics` has them, under
            the attack that they name.
        sha256, size: of the weights file; size in bytes.
        url: http, https or file URL of the weights, if they are not beside the card.
        license: SPDX identifier of the weights' licence.
        notes: what else a user should know.
    """

    name: str
    architecture: dict[str, Any]
    description: str = ""
    dataset: str | None = None
    defense: str | None = None
    threat: dict[str, Any] | None = None
    adaptive: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] | None = None
    results: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, Any] | None = None
    further: list[dict[str, Any]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    paper: dict[str, Any] | None = None
    companions: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)
    detectors: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    size: int = 0
    url: str | None = None
    license: str | None = None
    notes: str = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, `(H, W, C)`."""
        return tuple(self.architecture["input_shape"])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.architecture["num_classes"]

    @property
    def files(self) -> dict[str, Pin]:
        """Its files: "model", those of the companions by kind, and those of the detectors by name."""
        model = {"sha256": self.sha256, "size": self.size, "url": self.url}
        weights = {"model": model, **self.companions}
        found = [(kind, f"{kind}.weights.h5", pin) for kind, pin in weights.items()]
        found += [(name, f"{name}.npz", pin) for name, pin in self.detectors.items()]
        return {
            key: Pin(self.name, file, pin["sha256"], pin["size"], pin.get("url")) for key, file, pin in found
        }

    @property
    def norm(self) -> str | None:
        """Norm of the threat model."""
        return None if self.threat is None else self.threat["norm"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` takes back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "card") -> Card:
        """The card of `to_dict`, checked.

        Args:
            values: the card's fields.
            where: what to call them in an error.

        Raises:
            InputError: names `where`, the key, its value and what is allowed.
        """
        check_options(where, values, cls)
        _check_architecture(f"{where}: architecture", values["architecture"])
        for key in ("training", "evaluation"):
            if values.get(key) is not None:
                check_options(f"{where}: {key}", values[key], _SCHEMAS[key])
        for row in values.get("further", ()):
            check_options(f"{where}: further", row, _further)
        for kind, found in values.get("companions", {}).items():
            check_options(f"{where}: companions: {kind}", found, _companion)
        for name, found in values.get("detectors", {}).items():
            check_options(f"{where}: detectors: {name}", found, _detector)
        for name, found in values.get("variants", {}).items():
            check_options(f"{where}: variants: {name}", found or {"wrapper": {}}, _variant)
        card = cls(**values)
        _check_values(where, card)
        return card

    @classmethod
    def read(cls, path: Path | str) -> Card:
        """Read a `card.yaml`.

        Raises:
            InputError: it cannot be read, is not YAML, or says something that a card cannot say.
        """
        values = read_yaml(path)
        require(
            isinstance(values, dict), f"{path}: a card is a mapping of keys to values. Received: {values!r}."
        )
        return cls.from_dict(values, where=str(path))

    def write(self, path: Path | str) -> None:
        """Write a `card.yaml`, whole or not at all.

        Raises:
            InputError: the card says something that it cannot, or the place cannot be written.
        """
        self.from_dict(self.to_dict(), where=self.name)
        write_text(path, self.to_yaml())

    def to_yaml(self) -> str:
        """The text of a `card.yaml`."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)


def _architecture(name: str, input_shape: list[int], num_classes: int) -> None:
    """What a card must say of its architecture."""


def _threat(norm: str, eps: float, step_size: float | None = None) -> None:
    """What a card may say of its threat model."""


def _training(
    recipe: str,
    profile: str,
    epochs: int,
    seed: int = 0,
    digest: str | None = None,
    seconds: float | None = None,
) -> None:
    """What a card may say of its training."""


def _evaluation(
    examples: int,
    command: str | None = None,
    seed: int = 0,
    versions: dict[str, Any] | None = None,
    stages: dict[str, Any] | None = None,
) -> None:
    """What a card may say of its evaluation."""


def _further(
    examples: int,
    results: dict[str, Any],
    command: str | None = None,
    flags: list[str] | None = None,
) -> None:
    """What a card says of a measurement on another set of examples."""


def _companion(architecture: dict[str, Any], sha256: str, size: int, url: str | None = None) -> None:
    """What a card says of a model beside the classifier."""


def _detector(sha256: str, size: int, url: str | None = None, results: dict[str, Any] | None = None) -> None:
    """What a card says of a detector that was fit to it."""


def _variant(
    wrapper: dict[str, Any],
    results: dict[str, Any] | None = None,
    examples: int | None = None,
    command: str | None = None,
    flags: list[str] | None = None,
) -> None:
    """What a card says of a way to use the classifier."""


def _paper(source: str, results: dict[str, Any]) -> None:
    """What a card may say of a paper's figures."""


_SCHEMAS: dict[str, Callable[..., None]] = {
    "threat": _threat,
    "training": _training,
    "evaluation": _evaluation,
    "paper": _paper,
}


def _check_architecture(where: str, architecture: Mapping[str, Any]) -> None:
    """Check what every builder takes; `loading.build` checks the rest against the one that is named."""
    common = inspect.signature(_architecture).parameters
    check_options(where, {key: value for key, value in architecture.items() if key in common}, _architecture)
    sizes = [*architecture["input_shape"], architecture["num_classes"]]
    require(
        min(sizes) >= 1, f"{where}: input_shape and num_classes must be at least 1. Received: {architecture}."
    )


def check_name(where: str, name: str) -> None:
    """Refuse a name that is not a plain file name."""
    require(
        isinstance(name, str) and _NAME.fullmatch(name) is not None,
        f"{where}: name must be letters, digits, '_', '-' and '.', and begin with a letter or digit. "
        f"Received: {name!r}.",
    )


def check_aims(where: str, name: str, threat: dict[str, Any] | None, paper: dict[str, Any] | None) -> None:
    """Check what a card says before anything is trained: its name, threat model and the paper's figures.

    Raises:
        InputError: names `where`, the key, its value and what is allowed.
    """
    check_name(where, name)
    for key, values in {"threat": threat, "paper": paper}.items():
        if values is not None:
            check_options(f"{where}: {key}", values, _SCHEMAS[key])
    _check_percent(f"{where}: paper: results", (paper or {}).get("results", {}))
    for key, value in (threat or {}).items():
        require(
            key == "norm" or value is None or (is_finite(value) and value >= 0),
            f"{where}: threat: {key} must be a finite number >= 0. Received: {value!r}.",
        )


def _check_values(where: str, card: Card) -> None:
    check_aims(where, card.name, card.threat, card.paper)
    _check_percent(f"{where}: results", card.results)
    for row in card.further:
        _check_percent(f"{where}: further", row["results"])
    for name, variant in card.variants.items():
        _check_percent(f"{where}: variants: {name}", (variant or {}).get("results") or {})
    for name in card.detectors:
        require(
            name != "model" and name not in card.companions,
            f"{where}: detectors: {name} is the name of another of its files.",
        )
    for key, pin in card.files.items():
        check_name(where, key)
        _check_pin(where if key == "model" else f"{where}: {key}", pin)


def _check_pin(where: str, pin: Pin) -> None:
    require(
        _SHA256.fullmatch(pin.sha256) is not None,
        f"{where}: sha256 must be 64 hexadecimal digits in lower case. Received: {pin.sha256!r}.",
    )
    require(pin.size > 0, f"{where}: size must be the bytes of the weights file. Received: {pin.size}.")
    require(
        pin.url is None or pin.url.startswith(URL_STARTS),
        f"{where}: url must begin with {', '.join(URL_STARTS)}. Received: {pin.url!r}.",
    )


def _check_percent(where: str, results: Mapping[str, Any]) -> None:
    for attack, accuracy in results.items():
        require(
            isinstance(attack, str) and is_finite(accuracy) and 0 <= accuracy <= 100,
            f"{where}: {attack} must be an accuracy in percent, 0 to 100. Received: {accuracy!r}.",
        )
