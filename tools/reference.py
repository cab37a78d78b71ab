"""AutoAttack by its authors, in PyTorch, on a twin of a Keras classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from math import prod
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.predictions import predict_logits
from keras_robust.errors import InputError, require

TOLERANCE = 1e-4  # between the logits of a classifier and its twin
_NORMS = {"linf": "Linf", "l2": "L2"}

# From images (B, H, W, C) and labels (B,) to which of them, (B,) bool, still stand.
Stage = Callable[[np.ndarray, np.ndarray], np.ndarray]


def installed() -> bool:
    """Whether PyTorch and the authors' AutoAttack are at hand."""
    return all(find_spec(name) for name in ("torch", "pyautoattack"))


# The twin


def twin(model: keras.Model, channels_last: bool = False) -> Any:
    """The `torch.nn.Module` with the layers and weights of a Keras model that is a chain of layers.

    It maps images `(B, C, H, W)` to logits. Its weights are frozen, which spares the reference their
    gradients.

    Args:
        channels_last: keep images, weights and features in memory as `(B, H, W, C)`.

    Raises:
        InputError: a layer that it cannot rebuild.
    """
    import torch

    network = torch.nn.Sequential(*_modules(model)).eval().requires_grad_(False)
    return _channels_last(network) if channels_last else network


def difference(model: keras.Model, network: Any, images: np.ndarray) -> float:
    """The largest difference between the logits of a model and its twin on `images` `(B, H, W, C)`."""
    import torch

    with torch.no_grad():
        theirs = network(_as_torch(images)).numpy()
    return float(np.abs(np.asarray(predict_logits(model, images)) - theirs).max())


def checked_twin(model: keras.Model, images: np.ndarray, channels_last: bool = False) -> Any:
    """The twin, once its logits on `images` agree with the model's.

    Raises:
        InputError: a layer that it cannot rebuild, or logits that differ by more than `TOLERANCE`.
    """
    network = twin(model, channels_last)
    found = difference(model, network, images)
    require(found <= TOLERANCE, f"The twin's logits must agree to {TOLERANCE:g}. They differ by {found:g}.")
    return network


def _as_torch(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _channels_last(network: Any) -> Any:
    import torch

    class ChannelsLast(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return images.contiguous(memory_format=torch.channels_last)

    return torch.nn.Sequential(ChannelsLast(), network).to(memory_format=torch.channels_last)


def _modules(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _modules(layer)
        elif type(layer) in _TWINS:
            yield from _TWINS[type(layer)](layer)
        else:
            known = ", ".join(kind.__name__ for kind in _TWINS)
            raise InputError(f"No twin for layer {layer.name!r}, a {type(layer).__name__}. Valid: {known}.")


def _nothing(layer: keras.layers.Layer) -> Iterator[Any]:
    yield from ()


def _activation(layer: Any) -> Iterator[Any]:
    import torch

    valid: dict[str, list] = {"linear": [], "relu": [torch.nn.ReLU()]}
    name = keras.activations.serialize(layer.activation)
    require(name in valid, f"No twin for activation {name!r} of {layer.name!r}. Valid: {', '.join(valid)}.")
    yield from valid[name]


def _convolution(layer: keras.layers.Conv2D) -> Iterator[Any]:
    import torch

    kernel, *bias = layer.get_weights()
    module = torch.nn.Conv2d(
        layer.input.shape[-1],
        layer.filters,
        layer.kernel_size,
        stride=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        groups=layer.groups,
        bias=layer.use_bias,
    )
    yield _with_weights(module, kernel.transpose(3, 2, 0, 1), *bias)
    yield from _activation(layer)


def _dense(layer: keras.layers.Dense) -> Iterator[Any]:
    import torch

    kernel, *bias = layer.get_weights()
    module = torch.nn.Linear(layer.input.shape[-1], layer.units, bias=layer.use_bias)
    yield _with_weights(module, kernel.T, *bias)
    yield from _activation(layer)


def _with_weights(module: Any, *weights: np.ndarray) -> Any:
    import torch

    for parameter, values in zip(module.parameters(), weights, strict=True):
        parameter.data = torch.from_numpy(values.copy())
    return module


def _max_pool(layer: keras.layers.MaxPooling2D) -> Iterator[Any]:
    import torch

    require(layer.padding == "valid", f"No twin for {layer.name!r} with padding={layer.padding!r}.")
    yield torch.nn.MaxPool2d(layer.pool_size, layer.strides)


def _flatten(layer: keras.layers.Flatten) -> Iterator[Any]:
    import torch

    shape = layer.input.shape[1:]

    class Flatten(torch.nn.Module):
        """In the order of Keras: the channels of a pixel together."""

        def forward(self, features: Any) -> Any:
            return features.permute(0, 2, 3, 1).reshape(-1, prod(shape))

    yield Flatten() if len(shape) == 3 else torch.nn.Flatten()


_TWINS: dict[type, Callable[[Any], Iterator[Any]]] = {
    keras.layers.InputLayer: _nothing,
    keras.layers.Dropout: _nothing,
    keras.layers.Activation: _activation,
    keras.layers.Conv2D: _convolution,
    keras.layers.MaxPooling2D: _max_pool,
    keras.layers.Flatten: _flatten,
    keras.layers.Dense: _dense,
}


# The attack


def stages(network: Any, eps: float, norm: str, *, seed: int, batch: int) -> dict[str, Stage]:
    """What a twin classifies rightly, and the stages of the authors' "standard" AutoAttack after it."""
    import torch
    from pyautoattack import AutoAttack

    adversary = AutoAttack(network, eps=eps, norm=_NORMS[norm], version="standard", seed=seed)

    def stage(attacks: list[str]) -> Stage:
        def run(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
            adversary.attacks_to_run = attacks
            expected = torch.from_numpy(labels).long()
            _, found = adversary.run_standard_evaluation(_as_torch(images), expected, batch_size=batch)
            return (found == expected).numpy()

        return run

    return {"clean": stage([]), **{name: stage([name]) for name in adversary.attacks_to_run}}


def use_threads(count: int) -> None:
    """Compute with `count` threads."""
    import torch

    torch.set_num_threads(count)
