"""Blocks of prompts that a machine of the plain simulator keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class KeptBlocks:
    """The blocks used last, at most ``capacity`` of them; the oldest one goes first."""

    def __init__(self, capacity: int, block_tokens: int) -> None:
        self.capacity, self.block_tokens = capacity, block_tokens
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def leading(self, blocks: Sequence[int]) -> int:
        """How many of the first blocks are kept."""
        for count, block in enumerate(blocks):
            if block not in self._blocks:
                return count
        return len(blocks)

    def reuse(self, blocks: Sequence[int], input_tokens: int, produced: int) -> int:
        """Tokens of a prompt that need not be computed; their blocks are used now."""
        count = self.leading(blocks)
        for block in blocks[:count]:
            self._blocks.move_to_end(block)
        tokens = min(count * self.block_tokens, input_tokens)
        if tokens < input_tokens + produced:
            return tokens
        last = input_tokens % self.block_tokens or self.block_tokens
        return input_tokens - last

    def keep(self, blocks: Sequence[int]) -> None:
        """A prompt with these blocks is complete."""
        if not self.capacity:
            return
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
            if len(self._blocks) > self.capacity:
                self._blocks.popitem(last=False)
