"""Keras layers that defenses and attacks are made of."""

from keras_robust.layers.straight_through import StraightThrough

__all__ = ["StraightThrough"]
