"""Classifiers as an encoder and a head: built by name, or cut out of any Keras model."""

from keras_robust.models import cnn, embedding, madry, mlp, resnet, vgg, wide_resnet  # noqa: F401 (they register)
from keras_robust.models.critics import build_critic
from keras_robust.models.discriminators import build_discriminator, discriminators
from keras_robust.models.latent import JointClassifier, LatentClassifier
from keras_robust.models.manifold_transform import ManifoldTransformed, with_manifold_transform
from keras_robust.models.observed import observed
from keras_robust.models.registry import architectures, build, companions, wrappers
from keras_robust.models.self_ensemble import with_self_ensemble
from keras_robust.models.split import split
from keras_robust.models.straight_through import straight_through

__all__ = [
    "JointClassifier",
    "LatentClassifier",
    "ManifoldTransformed",
    "architectures",
    "build",
    "build_critic",
    "build_discriminator",
    "companions",
    "discriminators",
    "observed",
    "split",
    "straight_through",
    "with_manifold_transform",
    "with_self_ensemble",
    "wrappers",
]
