"""ADR: adversarial training with compact latents and smooth predictions."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.defenses.base import Batch, Defense, defenses
from keras_robust.errors import require_choice
from keras_robust.losses import (
    ConditionalEntropy,
    GlobalCompactness,
    LocalCompactness,
    cross_entropy,
    global_smoothness,
    kl_divergence,
    smoothness,
)
from keras_robust.models.latent import require_latent

_CHOICES = {
    "base": ("adv", "trades"),
    "pairs": ("clean_adversarial", "clean_clean"),
    "entropy_of": ("adversarial", "both"),
}


@keras.saving.register_keras_serializable("keras_robust")
@defenses.register("adr")
class ADR(Defense):
    """Adversarial divergence reduction: a base loss + local, global, smoothness and confidence terms.

    With z, h the latent and the prediction of a clean image, z', h' those of its adversarial one:

    - base "adv": CE(h, y) + CE(h', y); "trades": CE(h, y) + beta · KL(h || h');
    - local: ‖z - z'‖;
    - global: w_ij ‖z_i - z'_j‖ over all pairs of the batch, w positive within a class, negative between;
    - smoothness: KL(h || h'); with low entropy this is the clustering assumption;
    - confidence: entropy of h';
    - global smoothness: w_ij KL(h_i || h'_j), in the authors' code only.

    x' climbs the cross-entropy, `PGD(...)`, with "adv" and KL(h' || h), `PGD(loss="reverse_kl", ...)`, with
    "trades". Global terms pair the images of a batch: under a distribution strategy, of each replica's
    part of it.

    Args:
        classifier: built `LatentClassifier`; without the local and the global term any Keras model.
        adversary: attack that makes x'.
        local_weight: weight of the local term, >= 0.
        global_weight: weight of the global term, >= 0.
        smoothness_weight: weight of the smoothness term, >= 0.
        confidence_weight: weight of the confidence term, >= 0.
        global_smoothness_weight: weight of the global smoothness term, >= 0.
        base: "adv" (ADR-ADV) or "trades" (ADR-TRADES).
        beta: weight of the divergence of base "trades".
        cross_entropy_weight: weight of each cross-entropy of the base; ½ in the authors' TensorFlow code.
        norm: 1 (mean over the features of |d|), 2 (sqrt of the mean of d²) or "inf" (max |d|); the paper
            leaves it open, the code takes 1.
        alpha: in (0, 1]; w is 1 within a class and (alpha - 1) / alpha between classes.
        stop_gradient: hold z and h fixed in the local, global and smoothness terms, as the code does; the
            paper lets both sides move.
        pairs: "clean_adversarial" of the code, or "clean_clean" of the paper, ‖z_i - z_j‖.
        entropy_of: "adversarial" of the code, or "both" of the paper, the entropies of h and h'.
        options: `weight_decay`, `seed`, `name` of `Defense`.

    Raises:
        InputError: a classifier without latent, an option that is not as described.

    Source: Bui et al., ECCV 2020, equation 7, and the authors' code where named.

    >>> import keras_robust as kr
    >>> adversary = kr.attacks.PGD(eps=0.3, steps=10)
    >>> defense = kr.defenses.ADR(kr.models.build("small_cnn"), adversary)
    >>> defense.compile(optimizer="adam", metrics=["accuracy"])
    >>> defense.active_terms
    ['clean', 'adversarial', 'local', 'global', 'smoothness']
    """

    needs_adversary = True
    coupled_terms = ("global", "global_smoothness")

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any,
        local_weight: float = 1.0,
        global_weight: float = 1.0,
        smoothness_weight: float = 1.0,
        confidence_weight: float = 0.0,
        global_smoothness_weight: float = 0.0,
        *,
        base: str = "adv",
        beta: float = 1.0,
        cross_entropy_weight: float = 1.0,
        norm: int | str = 1,
        alpha: float = 0.99,
        stop_gradient: bool = True,
        pairs: str = "clean_adversarial",
        entropy_of: str = "adversarial",
        **options: Any,
    ) -> None:
        for option, value in {"base": base, "pairs": pairs, "entropy_of": entropy_of}.items():
            require_choice(f"{option} of ADR", value, _CHOICES[option])
        bases = {"adv": {"adversarial": cross_entropy_weight}, "trades": {"robustness": beta}}
        terms = {
            "clean": cross_entropy_weight,
            **bases[base],
            "local": local_weight,
            "global": global_weight,
            "smoothness": smoothness_weight,
            "confidence": confidence_weight,
            "global_smoothness": global_smoothness_weight,
        }
        super().__init__(classifier, adversary, terms=terms, **options)
        if local_weight or global_weight:
            require_latent("ADR with a local or global weight", classifier)
        self.conditional_entropy = ConditionalEntropy()
        self.local_compactness = LocalCompactness(norm, stop_gradient)
        self.global_compactness = GlobalCompactness(alpha, norm, stop_gradient)
        self.settings: dict[str, Any] = {
            "base": base,
            "beta": beta,
            "cross_entropy_weight": cross_entropy_weight,
            "norm": norm,
            "alpha": alpha,
            "stop_gradient": stop_gradient,
            "pairs": pairs,
            "entropy_of": entropy_of,
        }

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        clean, adversarial = self.view(batch, "clean"), self.view(batch, "adversarial")
        labels, latents = batch.labels, (clean.latent, adversarial.latent)
        settings, logits = self.settings, (clean.logits, adversarial.logits)
        paired = latents if settings["pairs"] == "clean_adversarial" else clean.latent
        sure = adversarial.logits if settings["entropy_of"] == "adversarial" else logits
        terms = {
            "clean": lambda: cross_entropy(labels, clean.logits),
            "adversarial": lambda: cross_entropy(labels, adversarial.logits),
            "robustness": lambda: kl_divergence(*logits),
            "local": lambda: self.local_compactness.call(*latents),
            "global": lambda: self.global_compactness.call(labels, paired),
            "smoothness": lambda: smoothness(*logits, settings["stop_gradient"]),
            "confidence": lambda: self.conditional_entropy.call(labels, sure),
            "global_smoothness": lambda: global_smoothness(
                labels, *logits, settings["alpha"], settings["stop_gradient"]
            ),
        }
        return {name: terms[name]() for name in self.active_terms}

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """Cross-entropy with what else of an image training held down; and by itself."""
        divergence = self.terms.get("robustness", 0.0) + self.terms["smoothness"]
        local = {"name": "local_compactness", "norm": self.settings["norm"]}
        unsure = {"name": "entropy"}
        terms = [
            ({"name": "kl"}, divergence),
            (local, self.terms["local"]),
            (unsure, self.terms["confidence"]),
        ]
        held_down = [(objective, weight) for objective, weight in terms if weight]
        plain = {"name": "cross_entropy"}
        if not held_down:
            return [plain]
        objectives, weights = zip((plain, self.terms["clean"]), *held_down, strict=True)
        return [{"name": "weighted", "objectives": list(objectives), "weights": list(weights)}, plain]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "local_weight": self.terms["local"],
            "global_weight": self.terms["global"],
            "smoothness_weight": self.terms["smoothness"],
            "confidence_weight": self.terms["confidence"],
            "global_smoothness_weight": self.terms["global_smoothness"],
            **self.settings,
        }
