"""The public boundary of every attack: arrays in, adversarial arrays out."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import keras
import numpy as np

from keras_robust.errors import require, require_choice, require_count
from keras_robust.models.precision import bfloat16_copy
from keras_robust.models.valid import check_model
from keras_robust.noise import Noise, reseeded
from keras_robust.registry import Registry
from keras_robust.threat import NORMS, ThreatModel
from keras_robust.validation import check_images, check_labels, check_seed

attacks: Registry[type[Attack]] = Registry("attack")

_LAYERS = 2**30  # the fold of an attack's noise that the layers of a model draw from


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack as a value: options in, a callable out.

    Args:
        eps: radius of the ball, in the units of the images ([0, 1]).
        norm: "linf" or "l2".
        bounds: lowest and highest pixel value.
        jit_compile: True, False, or "auto" (XLA on a single GPU only).
        search_dtype: "float32", or "bfloat16" to search faster on a copy of the model in reduced
            precision; what is found there is to be confirmed in float32.

    Calling `attack(model, images, labels)` gives adversarial images; see `__call__`.

    Raises:
        InputError: an option out of its range, or a norm that the attack does not work in.

    >>> from keras_robust.attacks import FGSM
    >>> FGSM(eps=0.1, norm="l2").threat
    ThreatModel(norm='l2', eps=0.1, bounds=(0.0, 1.0))
    """

    eps: float
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    jit_compile: bool | str = "auto"
    search_dtype: str = "float32"

    black_box: ClassVar[bool] = False  # whether it sees no gradients
    minimal: ClassVar[bool] = False  # whether it looks for the nearest misclassified image
    norms: ClassVar[tuple[str, ...]] = tuple(NORMS)  # those it works in, the usual one first
    budget: ClassVar[str | None] = None  # the option that a short name's number sets, as in "pgd-40"
    variant: ClassVar[str | None] = None  # the option that a word in a short name sets: "autoattack-fast"

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, np.generic):  # of a sweep by numpy.arange, say
                object.__setattr__(self, option.name, value.item())
        self.threat  # noqa: B018 (validates eps, norm and bounds)
        object.__setattr__(self, "bounds", tuple(self.bounds))
        require(self.minimal or self.eps != math.inf, "eps must be a finite number. Received: eps=inf.")
        require(
            self.norm in self.norms,
            f"{type(self).__name__} works in {' and '.join(self.norms)}. Received: norm={self.norm!r}.",
        )
        require(
            self.search_dtype in ("float32", "bfloat16"),
            f'search_dtype must be "float32" or "bfloat16". Received: {self.search_dtype!r}.',
        )
        require(
            self.jit_compile in (True, False, "auto"),
            f'jit_compile must be True, False or "auto". Received: {self.jit_compile!r}.',
        )

    @property
    def threat(self) -> ThreatModel:
        """The threat model that every returned image respects."""
        return ThreatModel(self.norm, self.eps, self.bounds)

    @property
    def has_targets(self) -> bool:
        """Whether it moves towards classes, its own or given ones, instead of away from the label."""
        return False

    @property
    def stages(self) -> dict[str, Attack]:
        """The attacks that it makes in turn on what still stands, by name; just itself for most."""
        return {"": self}

    @property
    def least_classes(self) -> int:
        """How many classes a model must know at least."""
        return 2

    @property
    def shared(self) -> dict[str, Any]:
        """The options that every attack has."""
        return {field.name: getattr(self, field.name) for field in fields(Attack)}

    @classmethod
    def options_for(cls, model: keras.Model) -> dict[str, Any]:
        """Options that the attack takes from the model it is to be made on."""
        return {}

    def __call__(
        self,
        model: keras.Model,
        images: Any,
        labels: Any,
        targets: Any = None,
        *,
        seed: int = 0,
        batch_size: int = 128,
    ) -> np.ndarray:
        """Adversarial images for `model`.

        Args:
            model: maps images to logits `(B, K)`; it runs with `training=False` and is left unchanged.
            images: `(N, ...)` float in [0, 1].
            labels: `(N,)` integers, the true classes.
            targets: `(N,)` integers, the wanted classes, for a targeted attack only.
            seed: makes the run repeat.
            batch_size: examples attacked at once.

        Returns:
            float32 array shaped like `images`, inside the ball and the bounds.

        Raises:
            InputError: images or labels of a wrong kind, shape or range, or a model that is not built or
                outputs probabilities, or knows too few classes for the attack.
        """
        require_count(batch_size=batch_size)
        seed = check_seed(seed)
        self.check(model)
        images = self._within_bounds(check_images(images, shape=model.input_shape[1:]))
        labels = check_labels(labels, num_classes=model.output_shape[-1], length=len(images))
        self._check_targets(targets)
        if targets is not None:
            targets = check_labels(targets, num_classes=model.output_shape[-1], length=len(images))
        adversarial = np.empty_like(images)
        for batch, first in enumerate(range(0, len(images), batch_size)):
            part = slice(first, first + batch_size)
            wanted = None if targets is None else targets[part]
            adversarial[part] = self.run(model, images[part], labels[part], wanted, key=(seed, batch))
        return adversarial

    def run(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        targets: np.ndarray | None = None,
        *,
        key: tuple[int, int],
    ) -> np.ndarray:
        """`__call__` on one batch of checked arrays; all randomness is a function of `key`."""
        searched, noise = self._searched(model), Noise(key).fold(_LAYERS)
        with reseeded(model, noise), reseeded(searched, noise):
            return np.asarray(self._run(searched, images, labels, targets, key))

    def check(self, model: keras.Model) -> None:
        """Refuse a model that it cannot be made on, without a pass through it.

        Raises:
            InputError: see `__call__`.
        """
        check_model(model)
        classes = model.output_shape[-1]
        require(
            classes >= self.least_classes,
            f"{type(self).__name__} is for {self.least_classes} classes or more. "
            f"Received: a model of {classes}.",
        )

    def _searched(self, model: keras.Model) -> keras.Model:
        return model if self.search_dtype == "float32" else bfloat16_copy(model)

    def _within_bounds(self, images: np.ndarray) -> np.ndarray:
        low, high = self.bounds
        require(
            low <= images.min() and images.max() <= high,
            f"Images must be inside bounds={self.bounds}. "
            f"Received: values from {images.min():g} to {images.max():g}.",
        )
        return images

    def _check_targets(self, targets: Any) -> None:
        require(targets is None, f"{type(self).__name__} takes no targets. Received: {targets!r}.")

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> Any:
        """Attack one batch of valid arrays; the randomness is a function of `key`."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Attack:
        return cls(**keras.saving.deserialize_keras_object(config))


def get(attack: Attack | str | dict[str, Any], **options: Any) -> Attack:
    """An attack from its registered name with options, or from {"name": ..., **options}.

    >>> get("pgd", eps=0.3, steps=40).steps
    40
    """
    if isinstance(attack, Attack):
        require(not options, f"Options go with the name of an attack. Received: {attack} and {options}.")
        return attack
    named = attack if isinstance(attack, dict) else {"name": attack}
    require("name" in named, f'An attack given as a dict needs a "name". Received: {named}.')
    options = {**named, **options}
    name = options.pop("name")
    cls = attacks[name]
    known = {field.name for field in fields(cls)}
    for option in options:
        require_choice(f"option of attack {name!r}", option, known)
    require("eps" in options or cls.minimal, f"Attack {name!r} needs eps, the radius of the ball.")
    return cls(**options)
