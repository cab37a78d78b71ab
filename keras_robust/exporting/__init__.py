"""Exporting: a classifier as a SavedModel or a TFLite file, and the check that it is still the same one."""

from keras_robust.exporting.checking import ExportCheck, ExportCheckError, check_export
from keras_robust.exporting.loading import load_exported
from keras_robust.exporting.writing import QUANTIZATIONS, export

__all__ = ["QUANTIZATIONS", "ExportCheck", "ExportCheckError", "check_export", "export", "load_exported"]
