"""Objectives on features and fixed class centres: what MAT and MMC train, climbed.

The centres are those of `max_mahalanobis_centers` for as many classes as there are logits and as many
dimensions as there are features, so a config need not hold them. Those that share their name with a loss are
registered under a package of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_robust import losses
from keras_robust.attacks.objective import Objective, clean_view, get_objective, objectives, to_config
from keras_robust.attacks.view import Goal, View
from keras_robust.directions import unit
from keras_robust.errors import require
from keras_robust.layers import max_mahalanobis_centers
from keras_robust.layers.centers import check_scale


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("cosine_distance")
@dataclass(frozen=True)
class CosineDistance(Objective):
    """Cosine distance of the features from those of the clean image: the adversary of MAT's BIBO.

    It has no gradient at the clean image itself: start at random.
    """

    needs_clean = True
    targetable = False

    def __call__(self, view: View, goal: Goal) -> Any:
        return losses.cosine_distance(_features(clean_view(goal)), _features(view))


@keras.saving.register_keras_serializable("keras_robust.attacks")
@objectives.register("feature_to_center")
@dataclass(frozen=True)
class FeatureToCenter(Objective):
    """Cosine distance of the features from the centre of the true label (targeted: minus that of the target).

    MAT's FTC.
    """

    def __call__(self, view: View, goal: Goal) -> Any:
        if goal.targets is not None:
            return -losses.feature_to_center(goal.targets, _features(view), _centers(view))
        return losses.feature_to_center(goal.labels, _features(view), _centers(view))


@keras.saving.register_keras_serializable("keras_robust.attacks")
@objectives.register("second_order")
@dataclass(frozen=True)
class SecondOrder(Objective):
    """Length of the gradient of FTC with respect to the features: MAT's SO."""

    targetable = False

    def __call__(self, view: View, goal: Goal) -> Any:
        return losses.second_order(goal.labels, _features(view), _centers(view))


@keras.saving.register_keras_serializable("keras_robust.attacks")
@objectives.register("max_mahalanobis_center")
@dataclass(frozen=True)
class MaxMahalanobisCenter(Objective):
    """Half the squared distance from the centre of the true label (targeted: minus that of the target).

    MMC's loss. Args: `scale`, length of the centres, > 0.
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, view: View, goal: Goal) -> Any:
        centers = self.scale * _centers(view)
        if goal.targets is not None:
            return -losses.max_mahalanobis_center(goal.targets, _features(view), centers)
        return losses.max_mahalanobis_center(goal.labels, _features(view), centers)


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("on_cosines")
@dataclass(frozen=True)
class OnCosines(Objective):
    """Another objective on `scale` times the cosines between features and centres in place of the logits.

    Against a classifier by cosine: long features flatten the softmax of its logits, not that of these, and
    the predictions are the same.

    Args:
        objective: as `get_objective` takes it.
        scale: of the cosines, > 0.

    >>> OnCosines("margin").label
    'margin on cosines'
    """

    objective: Any = "cross_entropy"
    scale: float = 10.0

    def __post_init__(self) -> None:
        check_scale(self.scale)
        object.__setattr__(self, "objective", get_objective(self.objective))

    @property
    def needs_clean(self) -> bool:  # type: ignore[override]
        return self.objective.needs_clean

    @property
    def targetable(self) -> bool:  # type: ignore[override]
        return self.objective.targetable

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return self.objective.coupled

    def least_classes(self, targeted: bool) -> int:
        return self.objective.least_classes(targeted)

    @property
    def label(self) -> str:
        return f"{self.objective.label} on cosines"

    def __call__(self, view: View, goal: Goal) -> Any:
        clean = None if goal.clean is None else self._by_cosines(goal.clean)
        return self.objective(self._by_cosines(view), goal._replace(clean=clean))

    def _by_cosines(self, view: View) -> View:
        cosines = keras.ops.matmul(unit(_features(view)), _centers(view).T.astype("float32"))
        return view._replace(logits=self.scale * cosines)

    def get_config(self) -> dict[str, Any]:
        return {"objective": to_config(self.objective), "scale": self.scale}


def _features(view: View) -> Any:
    require(
        view.latent is not None and len(view.latent.shape) == 2,
        "An objective on features and centres needs a LatentClassifier whose latent is flat, (B, d). "
        f"Received: {'no latent' if view.latent is None else f'a latent of shape {view.latent.shape}'}.",
    )
    return view.latent


def _centers(view: View) -> np.ndarray:
    return max_mahalanobis_centers(view.logits.shape[-1], _features(view).shape[-1])
