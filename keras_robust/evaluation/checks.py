"""Signs that a robust accuracy is not what it seems.

Sources: Athalye, Carlini & Wagner 2018, section 3.1; Carlini et al. 2019, "On Evaluating Adversarial
Robustness", section 5; Zimmermann et al. 2022 for the planted example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from keras_robust.evaluation.naming import CLEAN
from keras_robust.evaluation.protocols import in_grey_box
from keras_robust.evaluation.report import Outcome
from keras_robust.registry import Registry

_LEVEL = 0.01  # of significance
_POINTS = 1.0  # by which a stronger black-box attack must be stronger
_LAST_POINTS = 2.0  # that a black-box attack must break after all white-box ones
_LAST_SHARE = 0.01  # what it breaks of a classifier whose gradients are good
_TARGETED_POINTS = 15.0  # that targets may gain on an honest classifier: up to 11 were seen with TRADES
_FLAT_POINTS = 5.0  # that a fourfold radius costs at least
_FEW = 0.05  # survivors, or misses, that an honest classifier may have
_ZEROS = 0.1  # of its gradients that may vanish
_VARIATION = 1e-4  # relative difference between two calls that rounding may make


class Evidence(NamedTuple):
    """What the checks judge.

    outcomes: of the evaluation, by attack name. probes: what `probe` measured, or nothing.
    examples: number of examples evaluated.
    """

    outcomes: Mapping[str, Outcome]
    probes: Mapping[str, float]
    examples: int


Check = Callable[[Evidence], str | None]
ProbeCheck = Callable[[Mapping[str, float]], str | None]
checks: Registry[Check] = Registry("check")


def warnings(evidence: Evidence) -> list[str]:
    """What every registered check has to say."""
    return [message for name in checks if (message := checks[name](evidence))]


def _on_probes(name: str) -> Callable[[ProbeCheck], ProbeCheck]:
    """Register a check that looks only at the probes, and says nothing if there are none."""

    def add(check: ProbeCheck) -> ProbeCheck:
        checks.register(name)(lambda evidence: check(evidence.probes) if evidence.probes else None)
        return check

    return add


# What the attacks of the evaluation found


@checks.register("black_box_stronger")
def black_box_stronger(evidence: Evidence) -> str | None:
    """A black-box attack finds more than every white-box one, or much that a sequence of them left.

    Side by side: a sign test on the examples that attacks of one kind alone have broken. In a sequence,
    where the black-box attack comes last, what it breaks is more than the 1 % that it may find on a
    classifier whose gradients are good.
    """
    attacked = {name: o for name, o in evidence.outcomes.items() if name != CLEAN and o.counted}
    return _side_by_side(attacked, evidence.examples) or _last_in_sequence(attacked, evidence.examples)


def _side_by_side(attacked: Mapping[str, Outcome], examples: int) -> str | None:
    black = {name: o.correct for name, o in attacked.items() if o.black_box}
    white = {name: kept for name, o in attacked.items() if (kept := _after_white_box(o)) is not None}
    if not black or not white:
        return None
    by_black, by_white = (np.logical_and.reduce(list(kind.values())) for kind in (black, white))
    only_black, only_white = int((by_white & ~by_black).sum()), int((by_black & ~by_white).sum())
    if 100 * (only_black - only_white) <= _POINTS * examples or not _is_more(only_black, only_white):
        return None
    best_black, best_white = (min(kind, key=lambda name: kind[name].sum()) for kind in (black, white))
    return (
        f"{best_black} leaves {_percent(black[best_black])}, less than the best white-box attack "
        f"{best_white} ({_percent(white[best_white])}); {only_black} examples fell to black-box attacks "
        f"only, {only_white} to white-box ones only: gradients may be masked; trust the worst case."
    )


def _after_white_box(outcome: Outcome) -> np.ndarray | None:
    """What white-box attacks leave: `(N,)` bool, None if there was no such attack."""
    if not outcome.stages:
        return None if outcome.black_box else outcome.correct
    kept = None
    for stage in outcome.stages.values():
        if stage.black_box:
            break
        kept = stage.standing
    return kept


def _last_in_sequence(attacked: Mapping[str, Outcome], examples: int) -> str | None:
    for name, outcome in attacked.items():
        last, before = list(outcome.stages)[-1:], _after_white_box(outcome)
        if not last or not outcome.stages[last[0]].black_box or before is None:
            continue
        broken = int((before & ~outcome.correct).sum())
        if 100 * broken > _LAST_POINTS * examples and _exceeds(broken, examples, _LAST_SHARE):
            return (
                f"{name}: {last[0]} took what stands from {_percent(before)} to {_percent(outcome.correct)} "
                f"after all white-box stages, {broken} examples: gradients may be masked; trust the worst "
                "case, and expect longer searches to find more."
            )
    return None


@checks.register("grey_box_stronger")
def grey_box_stronger(evidence: Evidence) -> str | None:
    """Images made without knowledge of what a classifier does to its input fool it more: a sign test."""
    for name, outcome in evidence.outcomes.items():
        grey = evidence.outcomes.get(in_grey_box(name))
        if grey is None:
            continue
        only_grey = int((outcome.correct & ~grey.correct).sum())
        if _is_more(only_grey, int((grey.correct & ~outcome.correct).sum())):
            return (
                f"{name} leaves {_percent(outcome.correct)} end to end, but {_percent(grey.correct)} stand "
                "against images made on the static classifier: the attack does not see through what is done "
                "to the input; trust the worst case, and add black-box attacks."
            )
    return None


# What the probes measured


@_on_probes("flat_in_eps")
def flat_in_eps(probes: Mapping[str, float]) -> str | None:
    """Four times the radius hardly costs more, and not because the radius is small.

    It is not small if examples fall at half of it already. Nor is it why they stand if they stand in the
    largest ball too.
    """
    half, double = probes["pgd_20_half_eps"], probes["pgd_20_double_eps"]
    fell = _exceeds(probes["probed"] - _count(probes, "pgd_20_half_eps"), probes["probed"], _FEW)
    stand = _exceeds(_count(probes, "pgd_20_double_eps"), probes["probed"], _FEW)
    if half - double >= _FLAT_POINTS or not stand or not (fell or _stuck(probes)):
        return None
    return (
        f"PGD-20 leaves {half:.1f}% at half of eps and {double:.1f}% at twice eps: accuracy that hardly "
        "depends on eps shows an attack that is stuck; add black-box attacks."
    )


@_on_probes("survives_large_eps")
def survives_large_eps(probes: Mapping[str, float]) -> str | None:
    """Examples survive in a ball that holds every image."""
    if not _stuck(probes):
        return None
    return (
        f"{probes['pgd_20_whole_range']:.1f}% survive PGD-20 in a ball that holds every image, where nothing "
        "can: gradient attacks are stuck, and their accuracies say nothing; add black-box attacks."
    )


def _stuck(probes: Mapping[str, float]) -> bool:
    return _exceeds(_count(probes, "pgd_20_whole_range"), probes["probed"], _FEW)


@_on_probes("targeted_stronger")
def targeted_stronger(probes: Mapping[str, float]) -> str | None:
    """PGD towards one class finds far more than PGD away from the true one: a sign test."""
    gain = probes["pgd_20"] - probes["pgd_20_targeted"]
    targeted, untargeted = _count(probes, "only_pgd_20_targeted"), _count(probes, "only_pgd_20")
    if gain <= _TARGETED_POINTS or not _is_more(targeted, untargeted):
        return None
    return (
        f"PGD-20 towards the likeliest other class leaves {probes['pgd_20_targeted']:.1f}%, untargeted "
        f"{probes['pgd_20']:.1f}%: the cross-entropy of the true class is hard to climb; use autoattack, "
        "which does not rely on it."
    )


@_on_probes("more_steps_weaker")
def more_steps_weaker(probes: Mapping[str, float]) -> str | None:
    """PGD with 100 steps finds less than with 10: a sign test."""
    if not _is_more(_count(probes, "only_pgd_10"), _count(probes, "only_pgd_100")):
        return None
    return (
        f"PGD-100 leaves {probes['pgd_100']:.1f}%, PGD-10 {probes['pgd_10']:.1f}%: an attack that grows "
        "weaker with its steps follows gradients that mislead; use autoattack."
    )


@_on_probes("zero_gradients")
def zero_gradients(probes: Mapping[str, float]) -> str | None:
    """The input gradient is exactly zero at many examples."""
    if not _exceeds(_count(probes, "zero_gradients"), probes["probed"], _ZEROS):
        return None
    return (
        f"The gradient of the cross-entropy is exactly zero at {probes['zero_gradients']:.1f}% of the "
        "examples probed: there gradient attacks do not move; use autoattack, and straight-through "
        "gradients if a layer has none."
    )


@_on_probes("varying_outputs")
def varying_outputs(probes: Mapping[str, float]) -> str | None:
    """Two calls on the same images differ by more than rounding."""
    if probes["varying_outputs"] <= _VARIATION:
        return None
    return (
        f"Two calls on the same images give logits that differ by {100 * probes['varying_outputs']:.2g}% "
        "of the largest: the classifier is randomised; attack it by expectation over transformation, for "
        "example autoattack-rand."
    )


@_on_probes("gradients_at_inference")
def gradients_at_inference(probes: Mapping[str, float]) -> str | None:
    """The classifier itself computes a gradient."""
    if not probes["gradient_operations"]:
        return None
    return (
        f"{probes['gradient_operations']:.0f} operations of the inference graph come from differentiation: "
        "the classifier computes a gradient when it is used; make sure that attacks see through it."
    )


@_on_probes("planted_example_missed")
def planted_example_missed(probes: Mapping[str, float]) -> str | None:
    """Auto-PGD misses adversarial examples that are known to exist."""
    images = probes["planted_images"]
    missed = round(images * (100 - probes["planted_found"]) / 100)
    if not images or not _exceeds(missed, images, _FEW):
        return None
    return (
        f"Auto-PGD found {probes['planted_found']:.1f}% of {images:.0f} planted adversarial examples, where "
        f"95% are expected (random search found {probes['planted_random']:.1f}%): that gradient attacks fail "
        "on this classifier proves nothing; add black-box and adaptive attacks."
    )


def _count(probes: Mapping[str, float], name: str) -> int:
    """Number of the examples probed that a share in percent stands for."""
    return round(probes[name] * probes["probed"] / 100)


def _is_more(one: int, other: int) -> bool:
    """Whether chance alone, even odds for each, makes `one` so much more than `other`: the sign test."""
    return _exceeds(one, one + other, 0.5)


def _exceeds(count: float, total: float, share: float) -> bool:
    """Whether `count` of `total` is significantly more than `share`: a one-sided binomial test."""
    from scipy.stats import binomtest

    if not count:
        return False
    return bool(binomtest(int(count), int(total), share, alternative="greater").pvalue < _LEVEL)


def _percent(standing: np.ndarray) -> str:
    return f"{100 * standing.mean():.1f}%"
