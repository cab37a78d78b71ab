"""What Feature Scattering's adversary climbs: the transport distance of a batch from its clean self."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from keras_robust import losses
from keras_robust.attacks.objective import Objective, clean_view, objectives
from keras_robust.attacks.view import Goal, View
from keras_robust.losses.transport import check_transport


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("transport")
@dataclass(frozen=True)
class Transport(Objective):
    """Optimal transport distance between the logits of the batch and those of the clean one.

    The distance is one number: an example's value is its share, which depends on the whole batch, that is
    on the batch size, and under a distribution strategy on each replica's own part. It has no gradient at
    the clean images themselves: start at random.

    Args:
        regularization: weight of the entropy, > 0.
        iterations: of Sinkhorn's algorithm, at most.
        tolerance: stop once the potentials of the rows move by less than this, summed over the rows.

    Source: Feature Scattering, Zhang & Wang 2019, equation 5.
    """

    regularization: float = 0.01
    iterations: int = 100
    tolerance: float = 0.1

    needs_clean = True
    targetable = False
    coupled = True

    def __post_init__(self) -> None:
        check_transport(self.regularization, self.iterations, self.tolerance)

    def __call__(self, view: View, goal: Goal) -> Any:
        return losses.transport_cost(clean_view(goal).logits, view.logits, **self.get_config())
