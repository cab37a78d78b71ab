"""Evaluation: attack a classifier, report every example, and warn where a number may not hold."""

from keras_robust.evaluation.checks import checks as checks
from keras_robust.evaluation.merging import merge as merge
from keras_robust.evaluation.naming import attack_named as attack_named
from keras_robust.evaluation.report import Outcome as Outcome
from keras_robust.evaluation.report import Report as Report
from keras_robust.evaluation.run import evaluate as evaluate
from keras_robust.evaluation.transferring import Transfer as Transfer
from keras_robust.evaluation.transferring import transfer as transfer
