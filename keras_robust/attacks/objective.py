"""What an adversary climbs: objectives with one value per example, larger being worse for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras
from keras import ops

from keras_robust import losses
from keras_robust.attacks.view import Goal, View
from keras_robust.errors import InputError, is_finite, require
from keras_robust.losses.feature_norm import feature_norm
from keras_robust.registry import Registry
from keras_robust.schema import check_options

objectives: Registry[type[Objective]] = Registry("objective")


@dataclass(frozen=True)
class Objective:
    """Base: subclass it, give `__call__`, and register it under a name.

    Options are fields of a `@dataclass(frozen=True)`: they tell one objective, and its compiled graph, from
    another.

    `needs_clean` asks for the view of the clean images in `goal.clean`; an objective that ignores
    the labels and has no targeted form says so with `targetable = False`, and one whose value of an
    example depends on the others of its batch with `coupled = True`.

    >>> import keras, numpy as np
    >>> from keras import ops
    >>> from keras_robust.attacks import PGD, Objective
    >>> class Doubt(Objective):
    ...     def __call__(self, view, goal):
    ...         return -ops.max(ops.softmax(view.logits), axis=-1)
    >>> model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    >>> images, labels = np.full((1, 2, 2, 1), 0.5, "float32"), np.array([0])
    >>> PGD(eps=0.1, step_size=0.05, steps=3, loss=Doubt())(model, images, labels).shape
    (1, 2, 2, 1)
    """

    needs_clean = False
    targetable = True
    coupled = False

    def __call__(self, view: View, goal: Goal) -> Any:
        raise NotImplementedError

    def least_classes(self, targeted: bool) -> int:
        """How many classes a model must know at least."""
        return 2

    @property
    def label(self) -> str:
        """What a report calls it."""
        cls = type(self)
        return objectives.name_of(cls) if cls in objectives.values() else cls.__name__

    def stated(self) -> Any:
        """What a report states: plain data that tell it from others, its label where there are none."""
        try:
            return to_config(self)
        except InputError:  # a function without a name, or a sum with one
            return self.label

    def get_config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Objective:
        return cls(**config)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy of the true label (targeted: minus that of the target). Madry et al. 2018."""

    def __call__(self, view: View, goal: Goal) -> Any:
        if goal.targets is not None:
            return -losses.cross_entropy(goal.targets, view.logits)
        return losses.cross_entropy(goal.labels, view.logits)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("margin")
@dataclass(frozen=True)
class CWMargin(Objective):
    """-max(z_y - max_{j != y} z_j + confidence, 0); targeted: the same with the target on top.

    Carlini & Wagner 2017 in the Linf form of Madry's and Feature Scattering's evaluations, whose
    confidence is 50. The gradient stops once the margin exceeds the confidence.
    """

    confidence: float = 50.0

    def __call__(self, view: View, goal: Goal) -> Any:
        if goal.targets is not None:
            return -ops.maximum(losses.margin(goal.targets, view.logits) + self.confidence, 0.0)
        return -ops.maximum(self.confidence - losses.margin(goal.labels, view.logits), 0.0)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("dlr")
@dataclass(frozen=True)
class DLR(Objective):
    """Difference of logits ratio, and its targeted form. Croce & Hein 2020, equations 6 and 7."""

    def __call__(self, view: View, goal: Goal) -> Any:
        if goal.targets is not None:
            return losses.targeted_dlr(goal.labels, goal.targets, view.logits)
        return losses.dlr(goal.labels, view.logits)

    def least_classes(self, targeted: bool) -> int:
        return 4 if targeted else 3


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("kl")
@dataclass(frozen=True)
class KL(Objective):
    """KL(clean || adversarial): the inner objective of TRADES, Zhang et al. 2019."""

    needs_clean = True
    targetable = False

    def __call__(self, view: View, goal: Goal) -> Any:
        return losses.kl_divergence(clean_view(goal).logits, view.logits)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("reverse_kl")
@dataclass(frozen=True)
class ReverseKL(Objective):
    """KL(adversarial || clean): the adversary of ADR-TRADES as its paper writes it."""

    needs_clean = True
    targetable = False

    def __call__(self, view: View, goal: Goal) -> Any:
        return losses.kl_divergence(view.logits, clean_view(goal).logits)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("entropy")
@dataclass(frozen=True)
class Entropy(Objective):
    """Entropy of the prediction, whatever the label: the doubt that ADR's confidence term holds down."""

    targetable = False

    def __call__(self, view: View, goal: Goal) -> Any:
        return losses.entropy(view.logits)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("local_compactness")
@dataclass(frozen=True)
class LatentDistance(Objective):
    """Distance of the latent from that of the clean image: the compactness that ADR trains, climbed.

    Args:
        norm: 1 (mean over the features of |d|), 2 (sqrt of the mean of d²) or "inf" (max |d|).
    """

    norm: int | str = 1

    needs_clean = True
    targetable = False

    def __post_init__(self) -> None:
        feature_norm(self.norm)

    def __call__(self, view: View, goal: Goal) -> Any:
        require(
            view.latent is not None,
            "The objective 'local_compactness' climbs in the latent of a LatentClassifier; see "
            "keras_robust.models.split.",
        )
        return losses.local_compactness(clean_view(goal).latent, view.latent, self.norm)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("weighted")
@dataclass(frozen=True)
class Weighted(Objective):
    """A weighted sum of objectives, each given as `get_objective` takes it.

    >>> Weighted(["cross_entropy", "kl"], [1.0, 6.0]).needs_clean
    True
    """

    objectives: Sequence[Any]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        require(
            len(self.objectives) == len(self.weights) > 0 and all(map(is_finite, self.weights)),
            "A weighted objective takes as many finite weights as objectives, at least one. "
            f"Received: objectives={self.objectives!r}, weights={self.weights!r}.",
        )
        # Tuples, so that equal sums are equal keys of compiled functions.
        object.__setattr__(self, "objectives", tuple(map(get_objective, self.objectives)))
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))

    @property
    def needs_clean(self) -> bool:  # type: ignore[override]
        return any(objective.needs_clean for objective in self.objectives)

    @property
    def targetable(self) -> bool:  # type: ignore[override]
        return all(objective.targetable for objective in self.objectives)

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return any(objective.coupled for objective in self.objectives)

    def least_classes(self, targeted: bool) -> int:
        return max(objective.least_classes(targeted) for objective in self.objectives)

    @property
    def label(self) -> str:
        terms = zip(self.weights, self.objectives, strict=True)
        return " + ".join(f"{weight:g} {objective.label}" for weight, objective in terms)

    def __call__(self, view: View, goal: Goal) -> Any:
        terms = zip(self.weights, self.objectives, strict=True)
        return sum(weight * objective(view, goal) for weight, objective in terms)

    def get_config(self) -> dict[str, Any]:
        return {"objectives": [to_config(part) for part in self.objectives], "weights": list(self.weights)}


@dataclass(frozen=True)
class Custom(Objective):
    """Any callable `(labels, logits) -> (B,)`, a `keras.losses.Loss` included; targeted: minus it."""

    function: Callable[[Any, Any], Any]

    @property
    def label(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, view: View, goal: Goal) -> Any:
        if goal.targets is not None:
            return -self._values(goal.targets, view.logits)
        return self._values(goal.labels, view.logits)

    def _values(self, labels: Any, logits: Any) -> Any:
        values = self.function(labels, logits)
        require(
            len(values.shape) == 1,
            f"An attack's loss gives one value per example, (B,). Received: shape {tuple(values.shape)}.",
        )
        return values


def get_objective(objective: Any) -> Objective:
    """Resolve what stands for an objective.

    Args:
        objective: a name, `{"name": ..., **options}`, an `Objective`, a `keras.losses.Loss` or a callable
            `(labels, logits) -> (B,)`.

    Raises:
        InputError: something else, an unknown name, or an option that the objective does not take.

    >>> get_objective("cross_entropy").label
    'cross_entropy'
    """
    if isinstance(objective, Objective):
        return _told_apart(objective)
    if isinstance(objective, str):
        return get_objective({"name": objective})
    if isinstance(objective, Mapping):
        return _configured(objective)
    if isinstance(objective, keras.losses.Loss):
        return Custom(objective.call)
    if callable(objective):
        return Custom(objective)
    raise InputError(
        "An attack's loss is a name, an Objective, a keras.losses.Loss or a callable "
        f"(labels, logits) -> (B,). Received: {objective!r} of type {type(objective).__name__}."
    )


def _told_apart(objective: Objective) -> Objective:
    """Refuse an objective that would share a compiled graph with others of its class."""
    hidden = vars(objective).keys() - {field.name for field in fields(objective)}
    require(
        not hidden,
        f"{type(objective).__name__} keeps {', '.join(sorted(hidden))}, which no field of it tells: make it "
        "a @dataclass(frozen=True) with its options as fields.",
    )
    return objective


def _configured(config: Mapping[str, Any]) -> Objective:
    require("name" in config, f'An objective given as a mapping needs a "name". Received: {dict(config)}.')
    options = {key: value for key, value in config.items() if key != "name"}
    cls = objectives[config["name"]]
    check_options(f"objective {config['name']!r}", options, cls)
    return cls(**options)


def to_config(objective: Objective) -> dict[str, Any]:
    """Plain data that `get_objective` takes back.

    >>> to_config(get_objective("margin"))
    {'name': 'margin', 'confidence': 50.0}
    """
    return {"name": objectives.name_of(type(objective)), **objective.get_config()}


def check_targetable(objective: Objective) -> None:
    """Refuse a targeted attack on an objective without a targeted form."""
    require(
        objective.targetable,
        f"{type(objective).__name__} has no targeted form; use one of "
        f"{', '.join(name for name in objectives if objectives[name].targetable)}.",
    )


def clean_view(goal: Goal) -> View:
    """The view of the clean images, in an objective with `needs_clean`."""
    assert goal.clean is not None  # `aim` fills it in
    return goal.clean
