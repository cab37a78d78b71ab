"""Compiled functions, one for each model and set of static options."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.models.kept import kept_on

_GRAPHS = "graphs"


def compiled(
    model: Any, key: Hashable, build: Callable[[], Callable], signature: Any, jit_compile: bool | str
) -> Any:
    """The graph of `model` under `key`, traced from the function that `build` gives, at its first use.

    It is kept on the model itself, so that attack objects share it and it lives as long as the model.
    `signature` fixes the arguments: with free batch dimensions one trace serves every batch size
    (XLA still compiles each size), and there is a second one only for images of another size.
    """
    graphs = _graphs(model)
    jit = use_jit(jit_compile)
    arguments = tuple((tuple(spec.shape), spec.dtype) for spec in tf.nest.flatten(signature))
    kind = (key, arguments, jit)
    if kind not in graphs:
        function = tf.function(build(), input_signature=signature, jit_compile=jit, autograph=False)
        graphs[kind] = function.get_concrete_function()
    return graphs[kind]


@dataclass
class _Traced:
    """Graphs of a model, and the weights that it had when they were traced."""

    graphs: dict[Hashable, Callable] = field(default_factory=dict)
    weights: list[Any] = field(default_factory=list)


def _graphs(model: Any) -> dict[Hashable, Callable]:
    """The graphs of a model; none if its weights are others: quantised, or with low-rank updates."""
    traced, weights = kept_on(model, _GRAPHS, _Traced), getattr(model, "weights", [])
    if [*map(id, weights)] != [*map(id, traced.weights)]:
        traced.graphs.clear()
        traced.weights[:] = weights
    return traced.graphs


def on_rows(
    model: Any,
    key: Hashable,
    build: Callable[[], Callable],
    batch: tuple,
    numbers: tuple[np.generic | np.ndarray, ...],
    jit_compile: bool | str,
    coupled: bool = False,
) -> Any:
    """Call the graph of `model` under `key` with `(*batch, *numbers)`.

    `batch` is a nested structure of arrays and tensors with one row per example, of which any number may
    come; under XLA it is padded to a power of two, so that few sizes are compiled, unless the examples are
    `coupled`. `numbers` have no example axis. The result is a nested structure of rows, as many as came.
    """
    batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
    count = len(tf.nest.flatten(batch)[0])
    signature = (
        *tf.nest.map_structure(free_batch, batch),
        *[tf.TensorSpec([None] * np.ndim(number), number.dtype) for number in numbers],
    )
    function = compiled(model, key, build, signature, jit_compile)
    rows = np.arange(count)
    if use_jit(jit_compile) and not coupled:
        rows = np.resize(rows, 1 << (count - 1).bit_length())
    return gather(function(*gather(batch, rows), *numbers), np.arange(count))


def use_jit(jit_compile: bool | str) -> bool:
    """Resolve "auto": XLA on a single GPU, not on a CPU, where it slows convolutions in a loop."""
    if jit_compile == "auto":
        return len(tf.config.list_logical_devices("GPU")) == 1
    return bool(jit_compile)


def free_batch(tensor: Any) -> tf.TensorSpec:
    """The signature of a tensor whose batch size may change."""
    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def gather(state: Any, rows: np.ndarray) -> Any:
    """The `rows` of every tensor of a nested structure; nothing is copied where they are all of them."""

    def take(tensor: Any) -> Any:
        every = len(rows) == len(tensor) and bool((rows == np.arange(len(rows))).all())
        return tensor if every else tf.gather(tensor, rows)

    return tf.nest.map_structure(take, state)


def trace_count(model: Any) -> int:
    """How many graphs have been traced for attacks on `model`."""
    return len(_graphs(model))
