"""Detection: tell adversarial inputs of a classifier from others."""

from keras_robust.detection.base import Detector as Detector
from keras_robust.detection.base import detectors as detectors
from keras_robust.detection.base import roc_auc as roc_auc
from keras_robust.detection.density import DensityDetector as DensityDetector
from keras_robust.detection.density import ER2Detector as ER2Detector
from keras_robust.detection.density import ERDetector as ERDetector
from keras_robust.detection.density import KernelDensityDetector as KernelDensityDetector
from keras_robust.detection.entropy import EntropyDetector as EntropyDetector
from keras_robust.detection.evading import evade as evade
from keras_robust.detection.files import load as load
from keras_robust.detection.files import save as save
from keras_robust.detection.lid import LIDDetector as LIDDetector
from keras_robust.detection.metrics import DetectionMetrics as DetectionMetrics
from keras_robust.detection.metrics import detection_metrics as detection_metrics
from keras_robust.detection.noisy import matched_noise as matched_noise
