"""Blocks of examples, and the share of them that one of several processes takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from keras_robust.errors import InputError, require


@dataclass(frozen=True, order=True)
class Shard:
    """Number `number` of `count`: every count-th block, from block number - 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """The shard that "3/16" stands for; None: all.

        >>> Shard.parse("3/16")
        Shard(number=3, count=16)
        """
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d+)/(\d+)", text) if isinstance(text, str) else None
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f'A shard is "i/n" with 1 <= i <= n, for example "3/16". Received: {text!r}.')
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}" if self.count > 1 else ""

    def blocks(self, total: int, size: int) -> dict[int, np.ndarray]:
        """Rows of each block of the shard, by the block's number among all.

        Raises:
            InputError: there are more shards than blocks, so that this one is empty.
        """
        starts = range(0, total, size)
        blocks = {
            number: np.arange(start, min(start + size, total))
            for number, start in enumerate(starts)
            if number % self.count == self.number - 1
        }
        require(
            bool(blocks),
            f"Shard {self} is empty: {total} examples make {len(starts)} blocks of {size}. The shards up to "
            f"{len(starts)}/{self.count} have them all, and can be merged without it.",
        )
        return blocks

    @classmethod
    def of(cls, count: int, total: int, size: int) -> list[Shard]:
        """Those of `count` shards that are not empty."""
        return [cls(number, count) for number in range(1, min(count, -(-total // size)) + 1)]

    def rows(self, total: int, size: int) -> np.ndarray:
        """All rows of the shard, in order."""
        return np.concatenate(list(self.blocks(total, size).values()))
