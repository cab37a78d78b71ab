"""What Square tries next: in each norm's ball, changes of a square window that stay on its edge."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from keras import ops

from keras_robust.noise import Noise
from keras_robust.threat import ThreatModel, static_shape

_TINY = 1e-12


class Proposals(Protocol):
    """Proposals for `images` `(B, H, W, C)` in a threat model's ball."""

    def __init__(self, threat: ThreatModel, images: Any) -> None: ...

    @staticmethod
    def sides(ideal: np.ndarray, limit: int) -> np.ndarray:
        """Sides of windows in pixels near the `ideal` ones, `(Q,)` int32; the image has `limit`."""

    @staticmethod
    def draws(channels: int) -> int:
        """How many numbers uniform in (0, 1) a proposal for one image takes."""

    def start(self, noise: Noise) -> Any:
        """The first images to look at."""

    def __call__(self, current: Any, side: Any, draw: Any) -> Any:
        """The next images to look at, from the `current` ones, the side and `draw` `(B, draws)`."""


class LinfProposals:
    """Every pixel at an end of its interval: a window is set to +eps or -eps in each channel.

    It starts with vertical stripes. Source: Andriushchenko et al. 2020, algorithm 2.
    """

    def __init__(self, threat: ThreatModel, images: Any) -> None:
        self.shape = static_shape(images)
        self.low = threat.clip(images - threat.eps)
        self.high = threat.clip(images + threat.eps)

    @staticmethod
    def sides(ideal: np.ndarray, limit: int) -> np.ndarray:
        return np.clip(ideal, 1, max(limit - 1, 1))

    @staticmethod
    def draws(channels: int) -> int:
        return 2 + channels

    def start(self, noise: Noise) -> Any:
        batch, _, width, channels = self.shape
        return ops.where(noise.uniform((batch, 1, width, channels)) > 0.5, self.high, self.low)

    def __call__(self, current: Any, side: Any, draw: Any) -> Any:
        window = _inside(*_window(self.shape, side, draw[:, :2]), side)
        end = ops.where(_by_channel(draw[:, 2:]) > 0.5, self.high, self.low)
        return ops.where(window, end, current)


class L2Proposals:
    """The whole radius spent: one window gives its share of it to a bump in another window.

    What a channel of both windows holds, and an equal part of what the bounds have cut off, goes into the
    first window as an even mix of what was there and the bump. It starts with a grid of bumps. Source:
    Andriushchenko et al. 2020, algorithm 3.
    """

    def __init__(self, threat: ThreatModel, images: Any) -> None:
        self.threat = threat
        self.images = images
        self.shape = static_shape(images)

    @staticmethod
    def sides(ideal: np.ndarray, limit: int) -> np.ndarray:
        # Odd, and at least 3 where there is room, as the authors' code has it.
        return np.minimum(np.maximum(ideal, 3) | 1, (limit - 1) | 1)

    @staticmethod
    def draws(channels: int) -> int:
        return 5 + channels

    def start(self, noise: Noise) -> Any:
        """A grid of bumps, five along the shorter side, each upright or lying and of either sign."""
        batch, height, width, channels = self.shape
        side = max(min(height, width) // 5, 1)
        grid = (batch, height // side, 1, width // side, 1)
        tile = bump(side, side)
        upright = ops.reshape(tile, (side, 1, side, 1))
        lying = ops.reshape(ops.transpose(tile), (side, 1, side, 1))
        tiles = ops.where(noise.uniform((*grid, 1)) > 0.5, upright, lying)
        tiles = tiles * ops.sign(noise.uniform((*grid, channels), -1.0, 1.0))
        tiles = ops.reshape(tiles, (batch, grid[1] * side, grid[3] * side, channels))
        margins = [_halves(height - grid[1] * side), _halves(width - grid[3] * side)]
        delta = ops.pad(tiles, [(0, 0), *margins, (0, 0)])
        return self.threat.clip(self.images + self.threat.eps * self.threat.steepest(delta))

    def __call__(self, current: Any, side: Any, draw: Any) -> Any:
        places = _window(self.shape, side, draw[:, :2])
        window = _inside(*places, side)
        emptied = _inside(*_window(self.shape, side, draw[:, 2:4]), side)
        delta = current - self.images
        squares = ops.square(delta)
        held = _sum(ops.where(window, squares, 0.0))
        both = _sum(ops.where(ops.logical_or(window, emptied), squares, 0.0))
        unused = ops.maximum(ops.square(self.threat.eps) - _sum(squares, (1, 2, 3)), 0.0)
        bumps = self._bumps(places, side, draw[:, 4:])
        mix = ops.where(window, delta / ops.maximum(ops.sqrt(held), _TINY) + bumps, 0.0)
        size = ops.maximum(ops.sqrt(_sum(ops.square(mix))), _TINY)
        filled = mix * (ops.sqrt(both + unused / self.shape[-1]) / size)
        moved = ops.where(window, filled, ops.where(emptied, 0.0, delta))
        return self.threat.project(self.images + moved, self.images)

    def _bumps(self, places: tuple[Any, Any], side: Any, draw: Any) -> Any:
        """A bump at `places`, upright or lying, with a sign for each channel; outside the window anything."""
        size = min(self.shape[1:3])
        down, along = (ops.clip(place, 0, size - 1) for place in places)
        upright = draw[:, :1, None] > 0.5
        pixels = ops.where(upright, down * size + along, along * size + down)
        stamped = ops.take(ops.reshape(bump(side, size), (-1,)), pixels)
        return stamped[..., None] * ops.sign(_by_channel(draw[:, 1:]) - 0.5)


PROPOSALS: dict[str, type[Proposals]] = {"linf": LinfProposals, "l2": L2Proposals}


def bump(side: Any, size: int) -> Any:
    """Two hills of opposite sign, one above the other, on `side` x `side` pixels, of unit L2 norm.

    A hill is a sum of nested squares around its centre: the one of radius r weighs 1 / (r + 1)^2.
    Source: Andriushchenko et al. 2020, the eta of algorithm 3.

    Args:
        side: pixels, at most `size`; an int or a scalar int32 tensor.
        size: side of the array, which is zero outside of the bump.

    Returns:
        `(size, size)` float32.
    """
    half = side // 2
    pixels = ops.arange(size, dtype="int32")
    upper = pixels < half
    centres = ops.where(upper, half // 2, half + (side - half) // 2)
    radius = ops.maximum(ops.abs(pixels - centres)[:, None], ops.abs(pixels - half)[None, :])
    weights = np.cumsum(1.0 / np.arange(1, size + 1) ** 2, dtype="float32")
    within = ops.convert_to_tensor(np.concatenate([[0.0], weights]).astype("float32"))
    height = ops.take(within, half + 1) - ops.take(within, ops.minimum(radius, size))
    inside = pixels < side
    hills = [
        _unit(ops.where((rows & inside)[:, None] & inside[None, :], height, 0.0))
        for rows in (upper, ops.logical_not(upper))
    ]
    return _unit(hills[0] - hills[1])


def _unit(matrix: Any) -> Any:
    return matrix / ops.maximum(ops.sqrt(ops.sum(ops.square(matrix))), _TINY)


def _window(shape: tuple[Any, ...], side: Any, draw: Any) -> tuple[Any, Any]:
    """Row `(B, H, 1)` and column `(B, 1, W)` of each pixel within a window at a place drawn uniformly."""
    row, column = (_within(shape[1 + axis], side, draw[:, axis : axis + 1]) for axis in (0, 1))
    return row[:, :, None], column[:, None, :]


def _within(length: int, side: Any, draw: Any) -> Any:
    """Place of each of `length` pixels within an interval of `side`, `(B, length)` int32."""
    starts = ops.cast(length - side + 1, "float32")
    return ops.arange(length, dtype="int32")[None, :] - ops.cast(ops.floor(draw * starts), "int32")


def _inside(row: Any, column: Any, side: Any) -> Any:
    """Mask `(B, H, W, 1)` of a window."""
    rows, columns = ((place >= 0) & (place < side) for place in (row, column))
    return (rows & columns)[..., None]


def _by_channel(draw: Any) -> Any:
    return draw[:, None, None, :]


def _sum(values: Any, axis: tuple[int, ...] = (1, 2)) -> Any:
    """The sum over each channel of each image, in a shape that broadcasts against them."""
    return ops.sum(values, axis=axis, keepdims=True)


def _halves(number: int) -> tuple[int, int]:
    return number // 2, number - number // 2
