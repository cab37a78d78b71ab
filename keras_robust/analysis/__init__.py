"""Pictures of a classifier under attack, each with the numbers behind it."""

from keras_robust.analysis.curve import Curve as Curve
from keras_robust.analysis.curve import accuracy_curve as accuracy_curve
from keras_robust.analysis.curve import sweep as sweep
from keras_robust.analysis.gallery import gallery as gallery
from keras_robust.analysis.heat_map import heat_map as heat_map
