"""Detection: tell adversarial inputs of a classifier from others."""

from keras_robust.detection.base import Detector as Detector
from keras_robust.detection.base import detectors as detectors
from keras_robust.detection.base import roc_auc as roc_auc
from keras_robust.detection.entropy import EntropyDetector as EntropyDetector
