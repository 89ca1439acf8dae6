"""The accelerator without time: what each step of an instruction needs, as far as hardware makes it wait.

What a step needs is what hardware enforces, each from the source that is named beside it. A place that hardware may or
may not have at a time counts as not there.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..spec.config import Config
from ..spec.expansion import MOST_AGE
from ..spec.isa import Instruction, Opcode

__all__ = ["UntimedMachine"]

QUEUED = 17
"""Instructions in front of each unit: 16, and one in the queue's output register (rtl/control/dispatch.py)."""
AHEAD = 6
"""Products that window feed and engine have at least: one in work, 4 queued and one in the queue's output register
(rtl/units/feeds.py, rtl/engine/engine.py, rtl/primitives/sequencer.py)."""
BANKS = 2
"""Windows on chip (rtl/engine/windows.py)."""
TOTALS = 2
"""Rows' sums, a tile each, that wait for their CONTEXT (rtl/units/attention.py)."""
_LOAD, _SCORES, _CONTEXT, _NORM = Opcode.LOAD, Opcode.SCORES, Opcode.CONTEXT, Opcode.NORM


class _Product(NamedTuple):
    """A product: its instruction, for how many of each class windows and weights wait, and results before its own."""

    number: int
    until_products: int
    until_norms: int
    until_loads: int
    opcode: Opcode
    finishing: bool
    continues: bool
    result: int


class _Result(NamedTuple):
    """A product that gives results, and its block of keys, or -1."""

    product: int
    opcode: Opcode
    block: int


class _Block(NamedTuple):
    """A block of keys between SCORES and CONTEXT."""

    product: int
    first: bool
    last: bool
    keys: int


class UntimedMachine:
    """What has happened of a program that is given instruction by instruction, each step as early as it can.

    Counts are of a class's instructions in their order: `windows` of `products` have been taken by the window feed, and
    so on down the units. What one waits for is never behind it, but what makes room for it may be.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.issued = 0
        # Queues in front of loader and LayerNorm: instruction number, and until how many of each class.
        self.loads: deque[tuple[int, int, int, int]] = deque()
        self.norms: deque[tuple[int, int, int]] = deque()
        self.issued_loads = self.issued_norms = 0
        self.loaded = self.normed = 0
        self.products: list[_Product] = []
        self.passes_before = [0]
        self.windows = self.filled = self.taken = self.begun = self.computed = 0
        self.passes_filled = self.passes_computed = 0
        self.results: list[_Result] = []
        self.columns_before = [0]
        self.given_results = self.flowing = self.drained = 0
        self.blocks: list[_Block] = []
        self.contexts: list[int] = []  # products
        self.scored = self.accepted = self.streamed = self.totalled = 0
        self.growths = self.growths_taken = 0
        self.totals = self.totals_taken = 0

    # -- what goes on --------------------------------------------------------------------------------

    def run(self) -> None:
        """Every step that can happen."""
        products, blocks = self.products, self.blocks
        moved = True
        while moved:
            moved = False
            loads = self.loads
            while loads:
                _, matrix, stored, norms = loads[0]
                if matrix > self.computed or stored > self.drained or norms > self.normed:
                    break
                loads.popleft()
                self.loaded += 1
                moved = True
            while self.norms:
                _, stored, norms = self.norms[0]
                if stored > self.drained or norms > self.normed:
                    break
                self.norms.popleft()
                self.normed += 1
                moved = True
            count = len(products)
            while self.windows < count and self.windows - self.filled < AHEAD:
                product = products[self.windows]
                if product.until_products > self.drained or product.until_norms > self.normed:
                    break
                self.windows += 1
                moved = True
            while self.taken < count and self.taken - self.computed < AHEAD:
                product = products[self.taken]
                if product.until_loads > self.loaded or (
                    product.finishing and self.given_results - self.drained >= AHEAD
                ):
                    break
                self.taken += 1
                self.given_results += product.finishing
                moved = True
            while self._fill() | self._compute() | self._drain():
                moved = True
            while self.totalled < self.streamed:
                if blocks[self.totalled].last:
                    if self.totals - self.totals_taken >= TOTALS:
                        break
                    self.totals += 1
                self.totalled += 1
                moved = True
            if self.accepted < self.scored and self.totalled == self.accepted and self.growths == self.growths_taken:
                self.growths += not blocks[self.accepted].first
                self.accepted += 1
                moved = True

    def _fill(self) -> bool:
        """Windows into the banks: from memory, or from the softmax when it has accepted the block."""
        moved = False
        while self.filled < self.windows and self.filled < self.taken:
            product = self.products[self.filled]
            if product.opcode is _CONTEXT and self.streamed >= self.accepted:
                break
            end = self.passes_before[self.filled + 1]
            if self.filled == self.computed and self.passes_filled < end - 1 and self._begin():
                # Nothing but these windows keeps it from going on to its last pass.
                self.passes_filled = self.passes_computed = end - 1
                moved = True
            reached = min(end, self.passes_computed + BANKS)
            if reached > self.passes_filled:
                self.passes_filled = reached
                moved = True
            if self.passes_filled < end:
                break
            self.streamed += product.opcode is _CONTEXT
            self.filled += 1
        return moved

    def _begin(self) -> bool:
        """Whether the array may begin the next product: one that scales what is stored needs to know by how much.

        It asks for that as soon as it comes to it, before there are windows.
        """
        if self.begun == self.computed < self.taken:
            product = self.products[self.computed]
            if product.opcode is _CONTEXT and product.continues:
                if self.growths == self.growths_taken:
                    return False
                self.growths_taken += 1
            self.begun += 1
        return self.begun > self.computed

    def _compute(self) -> bool:
        """Passes through the array; a last one of results when the ring has room for them."""
        moved, before = False, self.begun
        while self._begin() and self.passes_filled > self.passes_before[self.computed]:
            product = self.products[self.computed]
            end = self.passes_before[self.computed + 1]
            last = self.passes_filled >= end
            if last and product.finishing:
                number = product.result
                waiting = self.columns_before[number + 1] - self.columns_before[self.flowing]
                last = number < self.flowing or waiting < self.config.columns
            reached = end if last else min(self.passes_filled, end - 1)
            if reached <= self.passes_computed:
                break
            self.passes_computed = reached
            moved = True
            if reached < end:
                break
            self.computed += 1
        return moved or self.begun > before

    def _drain(self) -> bool:
        """A product's results through the drain and the result path, one product after the other."""
        results, before = self.results, self.flowing + self.drained
        while True:
            if self.flowing == self.drained < self.given_results:
                _, opcode, block = results[self.flowing]
                if opcode is _SCORES and block > self.accepted:
                    break  # the block before is still looked at
                if opcode is _CONTEXT:
                    if self.totals == self.totals_taken:
                        break
                    self.totals_taken += 1
                self.flowing += 1
            if self.drained == self.flowing or results[self.drained].product >= self.computed:
                break
            self.scored += results[self.drained].opcode is _SCORES
            self.drained += 1
        return self.flowing + self.drained > before

    # -- issue ---------------------------------------------------------------------------------------

    def full(self, opcode: Opcode, finishing: bool) -> str:
        """Why an instruction cannot be issued: the queue that is full, or whose first is too old; or ""."""
        if opcode is _LOAD and len(self.loads) >= QUEUED:
            return "loads"
        if opcode is _NORM and len(self.norms) >= QUEUED:
            return "norms"
        if opcode is not _LOAD and opcode is not _NORM:
            count = len(self.products)
            if count - self.windows >= QUEUED:
                return "windows"
            if count - self.taken >= QUEUED:
                return "matrix"
            if finishing and len(self.results) - self.drained >= QUEUED:
                return "results"
        oldest = self.issued - MOST_AGE
        if self.loads and self.loads[0][0] < oldest:
            return "loads"
        if self.norms and self.norms[0][0] < oldest:
            return "norms"
        if self.windows < len(self.products) and self.products[self.windows].number < oldest:
            return "windows"
        if self.taken < len(self.products) and self.products[self.taken].number < oldest:
            return "matrix"
        return ""

    def issue(self, i: Instruction) -> str:
        """Give an instruction to its units; or say, as `full`, why it cannot be after all that can happen has."""
        get, opcode = i.fields.get, i.opcode
        multiplies = opcode is not _LOAD and opcode is not _NORM
        finishing = multiplies and not get("unfinished")
        if self.full(opcode, finishing):
            self.run()
            if problem := self.full(opcode, finishing):
                return problem

        def until(count: int, wait: int) -> int:
            return count + 1 - wait if wait else 0

        stored = until(len(self.results), get("wait_products", 0))
        norms = until(self.issued_norms, get("wait_norms", 0))
        if opcode is _LOAD:
            matrix = until(len(self.products), get("wait_matrix", 0))
            self.loads.append((self.issued, matrix, stored, norms))
            self.issued_loads += 1
        elif opcode is _NORM:
            self.norms.append((self.issued, stored, norms))
            self.issued_norms += 1
        else:
            number = len(self.products)
            loads = until(self.issued_loads, get("wait_loads", 0))
            self.products.append(
                _Product(
                    self.issued, stored, norms, loads, opcode, finishing, bool(get("continues")), len(self.results)
                )
            )
            self.passes_before.append(self.passes_before[-1] + get("passes", 0))
            block = -1
            if opcode is _SCORES:
                block = len(self.blocks)
                self.blocks.append(_Block(number, bool(get("row_first")), bool(get("row_last")), get("columns", 0)))
            elif opcode is _CONTEXT:
                self.contexts.append(number)
            if finishing:
                self.results.append(_Result(number, opcode, block))
                self.columns_before.append(self.columns_before[-1] + get("columns", 0))
        self.issued += 1
        return ""

    @property
    def ended(self) -> bool:
        """Whether everything that was issued is finished."""
        return (
            not self.loads and not self.norms and self.computed == len(self.products)
            and self.drained == len(self.results)
        )  # fmt: skip
