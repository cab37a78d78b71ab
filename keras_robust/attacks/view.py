"""What an adversary sees of a model, and what it wants."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops


class View(NamedTuple):
    """One forward pass in float32: logits `(B, K)` and, of a `LatentClassifier`, its latent `(B, ...)`."""

    logits: Any
    latent: Any = None


class Goal(NamedTuple):
    """What the adversary aims at.

    labels `(B,)` are the true ones; targets `(B,)` the wanted ones, or None; clean is the view of the
    unperturbed images, for objectives with `needs_clean`.
    """

    labels: Any
    targets: Any = None
    clean: View | None = None


def observe(model: Any, images: Any, training: bool = False) -> View:
    """Run `model` on `images` and return what there is to see, in float32."""
    if hasattr(model, "latent_and_logits"):
        latent, logits = model.latent_and_logits(images, training=training)
        return View(ops.cast(logits, "float32"), ops.cast(latent, "float32"))
    return View(ops.cast(model(images, training=training), "float32"))
