"""What Bilateral's adversary climbs: towards the class that the clean image is most easily taken for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_robust import losses
from keras_robust.attacks.objective import Objective, clean_view, objectives
from keras_robust.attacks.view import Goal, View


@keras.saving.register_keras_serializable("keras_robust")
@objectives.register("most_confusing")
@dataclass(frozen=True)
class MostConfusing(Objective):
    """Minus the cross-entropy of the likeliest wrong class of the clean image.

    Source: Bilateral adversarial training, Wang & Zhang 2019, section 3.2 ("MC" targets).
    """

    needs_clean = True
    targetable = False

    def __call__(self, view: View, goal: Goal) -> Any:
        own = ops.one_hot(goal.labels, view.logits.shape[-1], dtype="bool")
        target = ops.argmax(ops.where(own, float("-inf"), clean_view(goal).logits), axis=-1)
        return -losses.cross_entropy(target, view.logits)
