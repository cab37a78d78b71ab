"""AutoAttack by its authors, in PyTorch, on a twin of a Keras classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from math import prod
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.predictions import predict_logits
from keras_robust.errors import require
from keras_robust.models.graph import flattened, rewire

TOLERANCE = 1e-4  # between the logits of a classifier and its twin
_NORMS = {"linf": "Linf", "l2": "L2"}

# From images (B, H, W, C) and labels (B,) to which of them, (B,) bool, still stand.
Stage = Callable[[np.ndarray, np.ndarray], np.ndarray]


def installed() -> bool:
    """Whether PyTorch and the authors' AutoAttack are at hand."""
    return all(find_spec(name) for name in ("torch", "pyautoattack"))


# The twin


def twin(model: keras.Model, channels_last: bool = False) -> Any:
    """The `torch.nn.Module` with the layers and weights of a Keras model that is a graph of layers.

    It maps images `(B, C, H, W)` to logits. Its weights are frozen, which spares the reference their
    gradients.

    Args:
        channels_last: keep images, weights and features in memory as `(B, H, W, C)`.

    Raises:
        InputError: a layer that it cannot rebuild.
    """
    network = _graph(model).eval().requires_grad_(False)
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


def _graph(model: keras.Model) -> Any:
    """A module of the modules of all operations, those of nested models too, in the order of their calls."""
    import torch

    calls: list[tuple[int, list[int]]] = []
    modules = torch.nn.ModuleList()

    def note(operation: Any, *inputs: Any, **options: Any) -> Any:
        outputs, given = operation(*inputs, **options), keras.tree.flatten(inputs)
        calls.append((id(outputs), [id(tensor) for tensor in given]))
        modules.append(_module(operation, given[0].shape[1:]))
        return outputs

    traced = rewire(flattened(model), note)
    first, last = id(traced.inputs[0]), id(traced.outputs[0])

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = modules

        def forward(self, images: Any) -> Any:
            found = {first: images}
            for (name, inputs), module in zip(calls, self.parts, strict=True):
                found[name] = module(*(found[one] for one in inputs))
            return found[last]

    return Graph()


def _module(operation: Any, shape: tuple[int, ...]) -> Any:
    """The module of an operation on inputs of a shape `(B, *shape)`."""
    import torch

    kind = type(operation).__name__
    require(kind in _TWINS, f"No twin for {operation.name!r}, a {kind}. Valid: {', '.join(_TWINS)}.")
    parts = list(_TWINS[kind](operation, shape))
    return parts[0] if len(parts) == 1 else torch.nn.Sequential(*parts)


def _nothing(layer: keras.layers.Layer, shape: tuple[int, ...]) -> Iterator[Any]:
    yield from ()


def _activation(layer: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    valid: dict[str, list] = {"linear": [], "relu": [torch.nn.ReLU()]}
    name = keras.activations.serialize(layer.activation)
    require(name in valid, f"No twin for activation {name!r} of {layer.name!r}. Valid: {', '.join(valid)}.")
    yield from valid[name]


def _relu(layer: keras.layers.ReLU, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    plain = layer.max_value is None and not layer.threshold
    require(plain, f"No twin for {layer.name!r} with a threshold or a largest value.")
    yield torch.nn.LeakyReLU(float(layer.negative_slope)) if layer.negative_slope else torch.nn.ReLU()


def _convolution(layer: keras.layers.Conv2D, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    kernel, *bias = layer.get_weights()
    sides = zip(shape[:2], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    (top, bottom), (left, right) = (_padding(*side) if layer.padding == "same" else (0, 0) for side in sides)
    even = (top, left) == (bottom, right)
    if not even:
        yield torch.nn.ZeroPad2d((left, right, top, bottom))
    module = torch.nn.Conv2d(
        kernel.shape[2] * layer.groups,
        layer.filters,
        layer.kernel_size,
        stride=layer.strides,
        padding=(top, left) if even else 0,
        dilation=layer.dilation_rate,
        groups=layer.groups,
        bias=layer.use_bias,
    )
    yield _with_weights(module, kernel.transpose(3, 2, 0, 1), *bias)
    yield from _activation(layer, shape)


def _padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after a side; TensorFlow puts the odd one after it."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _normalization(layer: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    require(layer.scale and layer.center, f"No twin for {layer.name!r} without scale or centre.")
    gamma, beta, mean, variance = layer.get_weights()
    module = torch.nn.BatchNorm2d(len(gamma), eps=layer.epsilon)
    module.running_mean, module.running_var = torch.from_numpy(mean.copy()), torch.from_numpy(variance.copy())
    yield _with_weights(module, gamma, beta)


def _dense(layer: keras.layers.Dense, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    kernel, *bias = layer.get_weights()
    module = torch.nn.Linear(*kernel.shape, bias=layer.use_bias)
    yield _with_weights(module, kernel.T, *bias)
    yield from _activation(layer, shape)


def _with_weights(module: Any, *weights: np.ndarray) -> Any:
    import torch

    for parameter, values in zip(module.parameters(), weights, strict=True):
        parameter.data = torch.from_numpy(values.copy())
    return module


def _max_pool(layer: keras.layers.MaxPooling2D, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    require(layer.padding == "valid", f"No twin for {layer.name!r} with padding={layer.padding!r}.")
    yield torch.nn.MaxPool2d(layer.pool_size, layer.strides)


def _mean(layer: keras.layers.GlobalAveragePooling2D, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    class Mean(torch.nn.Module):
        def forward(self, features: Any) -> Any:
            return features.mean(dim=(2, 3))

    require(not layer.keepdims, f"No twin for {layer.name!r} with keepdims.")
    yield Mean()


def _sum(layer: keras.layers.Add, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    class Sum(torch.nn.Module):
        def forward(self, *features: Any) -> Any:
            return sum(features[1:], features[0])

    yield Sum()


def _flatten(layer: keras.layers.Flatten, shape: tuple[int, ...]) -> Iterator[Any]:
    import torch

    class Flatten(torch.nn.Module):
        """In the order of Keras: the channels of a pixel together."""

        def forward(self, features: Any) -> Any:
            return features.permute(0, 2, 3, 1).reshape(-1, prod(shape))

    yield Flatten() if len(shape) == 3 else torch.nn.Flatten()


# By the name of the class, because those of some operations are not public.
_TWINS: dict[str, Callable[[Any, tuple[int, ...]], Iterator[Any]]] = {
    "ConvertToTensor": _nothing,
    "Dropout": _nothing,
    "Activation": _activation,
    "ReLU": _relu,
    "Conv2D": _convolution,
    "BatchNormalization": _normalization,
    "MaxPooling2D": _max_pool,
    "GlobalAveragePooling2D": _mean,
    "Add": _sum,
    "Flatten": _flatten,
    "Dense": _dense,
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
