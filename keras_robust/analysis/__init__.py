"""Pictures of a classifier under attack, each with the numbers behind it."""

from keras_robust.analysis.clusters import ClusterMatch as ClusterMatch
from keras_robust.analysis.clusters import clusters as clusters
from keras_robust.analysis.cosine import CosineTable as CosineTable
from keras_robust.analysis.cosine import cosine_table as cosine_table
from keras_robust.analysis.curve import Curve as Curve
from keras_robust.analysis.curve import accuracy_curve as accuracy_curve
from keras_robust.analysis.curve import sweep as sweep
from keras_robust.analysis.detection import DetectionTable as DetectionTable
from keras_robust.analysis.detection import detection as detection
from keras_robust.analysis.dimension import IntrinsicDimension as IntrinsicDimension
from keras_robust.analysis.dimension import intrinsic_dimension as intrinsic_dimension
from keras_robust.analysis.entropy import PredictionEntropy as PredictionEntropy
from keras_robust.analysis.entropy import prediction_entropy as prediction_entropy
from keras_robust.analysis.finding import Finding as Finding
from keras_robust.analysis.gallery import gallery as gallery
from keras_robust.analysis.heat_map import heat_map as heat_map
from keras_robust.analysis.latent_map import LatentMap as LatentMap
from keras_robust.analysis.latent_map import latent_map as latent_map
from keras_robust.analysis.plane import DecisionMap as DecisionMap
from keras_robust.analysis.plane import decision_map as decision_map
from keras_robust.analysis.surface import LossSurface as LossSurface
from keras_robust.analysis.surface import Surface as Surface
from keras_robust.analysis.surface import loss_surface as loss_surface
