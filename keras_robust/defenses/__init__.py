"""Defenses: Keras models that train a robust classifier."""

from keras_robust.defenses.adversarial_training import AdversarialTraining as AdversarialTraining
from keras_robust.defenses.base import Batch as Batch
from keras_robust.defenses.base import Defense as Defense
from keras_robust.defenses.base import Move as Move
from keras_robust.defenses.base import defenses as defenses
from keras_robust.defenses.standard import Standard as Standard
from keras_robust.defenses.trades import TRADES as TRADES
