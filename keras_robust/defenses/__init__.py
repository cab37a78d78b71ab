"""Defenses: Keras models that train a robust classifier."""

from keras_robust.defenses.adr import ADR as ADR
from keras_robust.defenses.adversarial_training import AdversarialTraining as AdversarialTraining
from keras_robust.defenses.atld import ATLD as ATLD
from keras_robust.defenses.base import Batch as Batch
from keras_robust.defenses.base import Defense as Defense
from keras_robust.defenses.base import Move as Move
from keras_robust.defenses.base import defenses as defenses
from keras_robust.defenses.bilateral import Bilateral as Bilateral
from keras_robust.defenses.er import ERClassifier as ERClassifier
from keras_robust.defenses.feature_scattering import FeatureScattering as FeatureScattering
from keras_robust.defenses.lat import LAT as LAT
from keras_robust.defenses.mat import MAT as MAT
from keras_robust.defenses.mmc import MMC as MMC
from keras_robust.defenses.rse import RSE as RSE
from keras_robust.defenses.standard import Standard as Standard
from keras_robust.defenses.tla import TLA as TLA
from keras_robust.defenses.trades import TRADES as TRADES
from keras_robust.defenses.vae_cla import VAECLA as VAECLA
