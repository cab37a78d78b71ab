"""What each check sees on honest and on deliberately masked classifiers: python tools/masking.py."""

from __future__ import annotations

from pathlib import Path

import keras

from keras_robust import data, evaluate, zoo
from keras_robust.evaluation.checks import Evidence, checks
from keras_robust.evaluation.masked import masked

PAGE = Path(__file__).resolve().parent / "masking.md"
SHOWN = {  # by title: entry of the zoo and threat model
    "at_digits": ("at_digits", "linf", 0.15),
    "at_mnist": ("at_mnist", "linf", 0.3),
    "standard_mnist": ("standard_mnist", "linf", 0.3),
    "at_mnist, L2 2.0": ("at_mnist", "l2", 2.0),  # not what it was trained for
}
MASKED = "at_digits"  # the classifier that is masked
EXAMPLES = 128
WHITE_BOX, BLACK_BOX = "apgd-40", "square-1000"

SEEN = {  # by check: what it looks at, and the names of those numbers
    "black_box_stronger": (f"stand after {WHITE_BOX} / {BLACK_BOX}, %", (WHITE_BOX, BLACK_BOX)),
    "grey_box_stronger": ("attacks on a variant, of which none is here", ()),
    "flat_in_eps": ("PGD-20 at eps/2 / 2 eps, %", ("pgd_20_half_eps", "pgd_20_double_eps")),
    "survives_large_eps": ("PGD-20 in the whole range, %", ("pgd_20_whole_range",)),
    "targeted_stronger": ("PGD-20 untargeted / targeted, %", ("pgd_20", "pgd_20_targeted")),
    "more_steps_weaker": ("PGD-10 / PGD-100, %", ("pgd_10", "pgd_100")),
    "zero_gradients": ("gradients that are zero, %", ("zero_gradients",)),
    "varying_outputs": ("relative difference between calls", ("varying_outputs",)),
    "gradients_at_inference": ("operations from differentiation", ("gradient_operations",)),
    "planted_example_missed": (
        "planted found by APGD, % / at random, % / number planted",
        ("planted_found", "planted_random", "planted_images"),
    ),
}


def columns() -> dict[str, dict[str, str]]:
    """By classifier, what each check saw on it; in bold where it warned."""
    found = {title: _column(zoo.load(name), name, *threat) for title, (name, *threat) in SHOWN.items()}
    name, *threat = SHOWN[MASKED]
    hidden = {f"{name}, {kind}": _column(masked[kind](zoo.load(name)), name, *threat) for kind in masked}
    return found | hidden


def _column(model: keras.Model, name: str, norm: str, eps: float) -> dict[str, str]:
    test = data.load(str(zoo.card(name).dataset), "test")
    report = evaluate(model, test, [WHITE_BOX, BLACK_BOX], norm=norm, eps=eps, examples=EXAMPLES)
    numbers = {**report.accuracy, **report.probes}
    evidence = Evidence(report.outcomes, report.probes, report.examples)
    column = {}
    for check, (_, names) in SEEN.items():
        text = " / ".join(f"{numbers[key]:.3g}" for key in names)
        column[check] = f"**{text}**" if checks[check](evidence) else text
    return column


def page() -> str:
    """The table as Markdown: a row for each check, a column for each classifier."""
    found = columns()
    rows = [["check", "looks at", *found], ["---", "---", *["---:"] * len(found)]]
    rows += [[f"`{check}`", SEEN[check][0], *(column[check] for column in found.values())] for check in SEEN]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(f"Bold where the check warns. Written by `python tools/masking.py`.\n\n{page()}")
    print(PAGE.read_text())
