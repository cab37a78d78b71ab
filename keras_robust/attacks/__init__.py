"""Adversaries: an objective climbed (or searched) inside a threat model."""

from keras_robust.attacks.apgd import APGD as APGD
from keras_robust.attacks.apgd import APGDTargeted as APGDTargeted
from keras_robust.attacks.base import Attack as Attack
from keras_robust.attacks.base import attacks as attacks
from keras_robust.attacks.base import get as get
from keras_robust.attacks.fab import FABTargeted as FABTargeted
from keras_robust.attacks.objective import Objective as Objective
from keras_robust.attacks.objective import objectives as objectives
from keras_robust.attacks.pgd import BIM as BIM
from keras_robust.attacks.pgd import CW as CW
from keras_robust.attacks.pgd import FGSM as FGSM
from keras_robust.attacks.pgd import MIM as MIM
from keras_robust.attacks.pgd import PGD as PGD
from keras_robust.attacks.pgd import MultiTargeted as MultiTargeted
from keras_robust.attacks.predictions import classify as classify
from keras_robust.attacks.square import Square as Square
from keras_robust.attacks.view import Goal as Goal
from keras_robust.attacks.view import View as View
from keras_robust.attacks.view import observe as observe
