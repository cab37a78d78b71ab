"""Small defenses for the tests of this room, and for the script that runs under a strategy."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_robust.attacks import PGD
from keras_robust.defenses import Defense, Move, defenses
from keras_robust.losses import cross_entropy
from keras_robust.models import LatentClassifier

CLASSES = 3
SHAPE = (4, 4, 1)
ADVERSARY = PGD(eps=0.1, steps=2)


def batch(examples=8, seed=0):
    """Images `(examples, 4, 4, 1)` and labels."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(examples, *SHAPE)).astype("float32")
    return images, rng.integers(0, CLASSES, examples)


def of_each_kind(whole=False):
    """Names of all defenses; unless the whole is tested, of the first with these players and moves."""
    kinds = {name: (cls.players, cls.moves, bool(cls.coupled_terms)) for name, cls in defenses.items()}
    first = {kind: name for name, kind in sorted(kinds.items(), reverse=True)}
    return list(defenses) if whole else sorted(first.values())


def every(name):
    """As a parameter of a test that takes its time."""
    return pytest.param(name, marks=[] if name in of_each_kind() else pytest.mark.slow)


EVERY_IF_WHOLE = [every(name) for name in defenses]

# Noise of layers is each replica's own, and another under XLA.
QUIET = {"rse": {"first": 0.0, "inner": 0.0}}


def classifier(dropout=0.0, dtype=None, head=None, latent=None):
    """The same one-hidden-layer network at every call.

    Its head is a layer of class `head`, or affine; a layer of class `latent` halves its features at the end.
    """
    random.seed(1)  # Keras draws its seeds from it; set_random_seed drops TensorFlow's kernels too
    activation = None if head or latent else "relu"  # centres and moments have all signs
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Flatten(dtype=dtype),
            layers.Dense(12 if latent else 6, activation=activation, dtype=dtype),
            layers.Dropout(dropout, dtype=dtype),
            *([latent()] if latent else []),
        ]
    )
    # Centres of length 1: those of MMC's default length are too far away for the few steps of a test.
    last = head(CLASSES, scale=1.0) if head else layers.Dense(CLASSES, dtype="float32")
    return LatentClassifier(encoder, keras.Sequential([keras.Input((6,)), last]))


def build(defense, adversary=ADVERSARY, dropout=0.0, dtype=None, **options):
    """A defense, given as its class or registered name, of a fresh classifier."""
    cls = defenses[defense] if isinstance(defense, str) else defense
    options = {**QUIET.get(defense, {}), **options}
    return cls(classifier(dropout, dtype, cls.needs_head, cls.needs_latent), adversary, **options)


def clip(variable):
    return ops.clip(variable, -0.01, 0.01)


@keras.saving.register_keras_serializable("keras_robust_tests")
class Duel(Defense):
    """A toy with two players: a clipped critic steps twice, the classifier once, then both together."""

    needs_adversary = True

    def __init__(self, classifier, adversary, critic=None, peace=0.25, **options):
        terms = {"clean": 1.0, "critic": 0.5, "peace": peace}
        super().__init__(classifier, adversary, terms=terms, **options)
        self.critic = critic or keras.Sequential([keras.Input((CLASSES,)), layers.Dense(1)])

    def players(self):
        return {**super().players(), "critic": self.critic}

    def moves(self):
        return [
            Move(self.critic_loss, players=("critic",), repeat=2, constraint=clip),
            Move(self.loss_terms),
            Move(self.peace, players=("classifier", "critic"), constraint=clip),
        ]

    def critic_loss(self, batch):
        clean, adversarial = self.view(batch).logits, self.view(batch, "adversarial").logits
        return {"critic": ops.mean(self.critic(adversarial)) - ops.mean(self.critic(clean))}

    def loss_terms(self, batch):
        return {"clean": cross_entropy(batch.labels, self.view(batch).logits)}

    def peace(self, batch):
        return {"peace": ops.square(self.critic(self.view(batch).logits)[:, 0] - 1.0)}

    def get_config(self):
        critic = keras.saving.serialize_keras_object(self.critic)
        return {**super().get_config(), "critic": critic, "peace": self.terms["peace"]}
