"""Loss terms: plain functions with one value per example, and `keras.losses.Loss` objects."""

from keras_robust.losses.cross_entropy import cross_entropy as cross_entropy
from keras_robust.losses.divergence import KLDivergence as KLDivergence
from keras_robust.losses.divergence import kl_divergence as kl_divergence
from keras_robust.losses.margin import Margin as Margin
from keras_robust.losses.margin import dlr as dlr
from keras_robust.losses.margin import margin as margin
from keras_robust.losses.margin import targeted_dlr as targeted_dlr
