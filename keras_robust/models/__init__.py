"""Classifiers as an encoder and a head: built by name, or cut out of any Keras model."""

from keras_robust.models import cnn, madry, mlp, resnet, vgg, wide_resnet  # noqa: F401 (they register)
from keras_robust.models.latent import JointClassifier, LatentClassifier
from keras_robust.models.registry import architectures, build
from keras_robust.models.split import split
from keras_robust.models.straight_through import straight_through

__all__ = ["JointClassifier", "LatentClassifier", "architectures", "build", "split", "straight_through"]
