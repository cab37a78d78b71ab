"""The benchmark's sections on our own attacks: their cost above bare gradients, precision, tracing."""

from __future__ import annotations

from collections.abc import Iterator

from measuring import (
    Row,
    Setting,
    Target,
    build_model,
    input_gradients,
    interleaved,
    our_pgd,
    random_batch,
    ratio,
    section,
)


@section
def attack(setting: Setting) -> Iterator[Row]:
    """PGD-20 over 20 bare compiled input gradients."""
    for name, model, images, labels in setting.subjects():
        runs = {
            "attack": our_pgd(model, images, labels, steps=20),
            "gradients": input_gradients(model, images, labels, count=20),
        }
        times = interleaved(runs, setting.repeats)
        compared = ratio(times["attack"], times["gradients"])
        yield Row("attack", name, "PGD-20 / 20 gradients", target=Target("<=", 1.10), **compared)


@section
def precision(setting: Setting) -> Iterator[Row]:
    """PGD-10 in float32 over the same in mixed_bfloat16."""
    for name, model, images, labels in setting.subjects():
        runs = {
            "float32": our_pgd(model, images, labels, steps=10),
            "bfloat16": our_pgd(build_model(name, "mixed_bfloat16"), images, labels, steps=10),
        }
        times = interleaved(runs, setting.repeats)
        compared = ratio(times["float32"], times["bfloat16"])
        yield Row("precision", name, "PGD-10 float32 / mixed_bfloat16", **compared)


@section
def traces(setting: Setting) -> Iterator[Row]:
    """Graphs traced by an attack while eps, steps, step size and batch size change."""
    from keras_robust import attacks
    from keras_robust.attacks.compiling import trace_count

    for name in setting.models:
        images, labels = random_batch(name, 4)
        for cls in (attacks.PGD, attacks.MIM, attacks.CW):
            model = build_model(name)
            for eps, steps, step_size, size in ((0.1, 1, 0.1, 4), (0.2, 2, None, 4), (0.1, 3, 0.05, 3)):
                cls(eps=eps, steps=steps, step_size=step_size)(model, images[:size], labels[:size])
            yield Row("traces", name, f"{cls.__name__}, 3 budgets", trace_count(model), Target("<=", 1))
