"""Reference of the fetch unit: a single instruction, its size and fields, and whether hardware refuses it.

Written by hand from docs/isa.md, bit by bit: nothing here is taken from the tables that the assembler and the RTL
are made of.
"""

from __future__ import annotations

from ..spec.config import Config

__all__ = [
    "CONTEXT",
    "HALT",
    "LOAD",
    "LOOP",
    "NEXT",
    "NORM",
    "PRODUCT",
    "SCORES",
    "SET",
    "SIZES",
    "STRAY",
    "UNPACK",
    "Kept",
    "refused",
]

HALT, LOAD, PRODUCT, SCORES, CONTEXT, NORM, SET, LOOP, NEXT = range(1, 10)
SIZES = {HALT: 1, LOAD: 3, PRODUCT: 8, SCORES: 8, CONTEXT: 8, NORM: 5, SET: 1, LOOP: 1, NEXT: 1}
"""Words of an instruction, by opcode."""
_ALL32 = (1 << 32) - 1


def _signed16(value: int) -> int:
    return value - (1 << 16) if value >> 15 else value


def _waits(w: list[int]) -> dict[str, int]:
    return {
        "wait_loads": w[0] >> 40 & 63, "wait_matrix": w[0] >> 46 & 63, "wait_products": w[0] >> 52 & 63,
        "wait_norms": w[0] >> 58,
    }  # fmt: skip


def _load(w: list[int]) -> dict[str, int]:
    return _waits(w) | {
        "address": w[0] & _ALL32,
        "rows": w[1] & 0xFFFF, "destination": w[1] >> 16 & 0xFFFF,
        "beats": w[1] >> 36 & 0xFFFFF, "target": w[1] >> 56 & 15,
        "stride": w[2] & _ALL32,
        "reserved": w[1] >> 60 | w[2] >> 36,
    }  # fmt: skip


def _product(w: list[int]) -> dict[str, int]:
    return _waits(w) | {
        "window_address": w[0] & _ALL32,
        "result_address": w[1] & _ALL32,
        "window_beats": w[1] >> 36 & 0xFFFFF, "result": w[1] >> 56 & 15, "continues": w[1] >> 60 & 1,
        "unfinished": w[1] >> 61 & 1, "wide": w[1] >> 62 & 1, "parameters_step": w[1] >> 63,
        "residual_address": w[2] & _ALL32,
        "rows_before": w[2] >> 36 & 0xFF, "rows_after": w[2] >> 44 & 0xFF, "row_first": w[2] >> 52 & 1,
        "row_last": w[2] >> 53 & 1, "gain": w[2] >> 54 & 7, "coarse": w[2] >> 57 & 1, "mask": w[2] >> 58 & 3,
        "multiply": w[2] >> 60 & 1, "rotate": w[2] >> 61 & 1, "place": w[2] >> 62 & 1,
        "count0": w[3] & 0xFFFF, "values_base": w[3] >> 16 & 0xFFFF, "stride0": w[3] >> 36 & 0xFFFF,
        "count3": w[3] >> 52,
        "positions_count": w[4] & 0xFFFF, "positions_base": w[4] >> 16 & 0xFFFF, "stride1": w[4] >> 36 & 0xFFFF,
        "count1": w[4] >> 52,
        "columns": w[5] & 0xFFFF, "parameters_base": w[5] >> 16 & 0xFFFF, "stride2": w[5] >> 36 & 0xFFFF,
        "count2": w[5] >> 52,
        "keys": w[6] & 0xFFFF, "key_start": _signed16(w[6] >> 16 & 0xFFFF), "stride3": w[6] >> 36 & 0xFFFF,
        "keep": w[6] >> 52 & 1, "kept": w[6] >> 53 & 1, "apart": w[6] >> 54 & 1,
        "passes": w[7] & 0xFFFF, "n": w[7] >> 16 & 63, "m_log2": w[7] >> 22 & 7, "depth": w[7] >> 25 & 63,
        "encoding": w[7] >> 36 & 3, "value_format": w[7] >> 38 & 3, "run": w[7] >> 40 & 63,
        "digit": w[6] >> 56 & 3, "lift": w[6] >> 58 & 1, "bits15": w[6] >> 59 & 1,
        "reserved": w[2] >> 63 | w[6] >> 55 & 1 | w[6] >> 60 | w[7] >> 46,
    }  # fmt: skip


def _norm(w: list[int]) -> dict[str, int]:
    return _waits(w) | {
        "input_address": w[0] & _ALL32,
        "wide_address": w[1] & _ALL32,
        "width": w[1] >> 36 & 0x3FFF,
        "narrow_address": w[2] & _ALL32,
        "rows_before": w[2] >> 36 & 0xFF, "rows_after": w[2] >> 44 & 0xFF,
        "parameters_address": w[3] & _ALL32,
        "inverse": (w[1] >> 50 & 1) << 32 | w[4] & _ALL32, "kind": w[1] >> 51 & 3, "epsilon": w[4] >> 36,
        "bits15": w[1] >> 53 & 1,
        "reserved": w[1] >> 54 | w[2] >> 52 | w[3] >> 36,
    }  # fmt: skip


STRAY = {HALT: 40, SET: 44, LOOP: 40, NEXT: 40}
"""From which bit on nothing may be set."""
UNPACK = {LOAD: _load, PRODUCT: _product, SCORES: _product, CONTEXT: _product, NORM: _norm}
"""An instruction's fields of its words, by opcode; those that control the fetch unit itself have none here."""


class Kept:
    """Which windows are on chip: those of the addresses from `start` to `end`, in words of the bus."""

    def __init__(self, config: Config) -> None:
        self.config, self.start, self.end = config, 0, 0

    def refused(self, opcode: int, fields: dict[str, int]) -> str:
        """Why hardware refuses to keep, or to take what is kept; empty if it does, or if nothing of that is asked."""
        keep, kept = fields["keep"], fields["kept"]
        if not (keep or kept):
            return ""
        words = self.config.window_words
        if not words or opcode == CONTEXT or (keep and kept):
            return "keep or kept is set, where there is no such memory, in CONTEXT, or both"
        first, odd = divmod(fields["window_address"], self.config.bus_bytes)
        behind = first + fields["window_beats"]
        if kept:
            if odd or first < self.start or behind > self.end or first > self.end:
                return f"kept is set, and of the {fields['window_beats']} words not all were kept"
        elif behind - first > words:
            return f"keep is set for {fields['window_beats']} words, and there is room for {words}"
        elif self.start <= first <= self.end and max(behind, self.end) - self.start <= words:
            self.end = max(behind, self.end)
        else:
            self.start, self.end = first, behind
        return ""


def refused(opcode: int, fields: dict[str, int], config: Config) -> str:
    """Why hardware refuses an instruction; empty if it takes it."""
    if fields["reserved"]:
        return "bits are set that are reserved"
    has = config.features
    if opcode == LOAD and fields["target"] > 3 + ("blocks4" in has):
        return f"target {fields['target']} is unknown"
    if opcode in (PRODUCT, SCORES, CONTEXT):
        if fields["result"] > 4 + ("best" in has) or fields["mask"] > 1 + ("causal" in has):
            return f"result {fields['result']} or mask {fields['mask']} is unknown"
        if problem := _refused_pairs(opcode, fields, config):
            return problem
        if fields["apart"] and (config.groups <= config.rows or opcode != PRODUCT or fields["result"]):
            return "apart is set, where groups are no more than rows, or for other results than STORE8"
        wide = 8 * max(1, min(32 // config.window, config.groups)) <= config.groups
        most = 1 + wide if "blocks4" in has else 0
        if fields["value_format"] > most or (fields["run"] and "blocks4" not in has):
            return f"value_format {fields['value_format']} or run {fields['run']} is unknown"
        if fields["value_format"] and fields["run"] < 2:
            return f"blocks of 4 bits with a run of {fields['run']}"
    if opcode == SCORES and fields["columns"] > config.groups * config.window:
        return f"scores of {fields['columns']} keys; a window has {config.groups * config.window}"
    if fields.get("place") and "position" not in has:
        return "place is set, and there is no register POSITION"
    if opcode == NORM and (fields["kind"] > ("rms" in has) or (fields["epsilon"] and "rms" not in has)):
        return f"kind {fields['kind']} or epsilon {fields['epsilon']} is unknown"
    if opcode == NORM and fields["bits15"] and "digits" not in has:
        return "bits15 is set, and there is no such feature"
    blocks = opcode == SCORES or (opcode in (PRODUCT, CONTEXT) and fields["result"] == 4)
    if blocks and fields["columns"] % config.groups:
        return f"{fields['columns']} columns; scores and transposed results have multiples of groups = {config.groups}"
    return ""


def _refused_pairs(opcode: int, fields: dict[str, int], config: Config) -> str:
    """Why hardware refuses what a product is to do with neighbouring columns, or with the largest of them."""
    for name, feature, results in (("multiply", "gate", (1, 2)), ("rotate", "rotary", (0, 4))):
        if not fields[name]:
            continue
        if feature not in config.features:
            return f"{name} is set, and there is no such unit"
        if opcode != PRODUCT or fields["result"] not in results:
            return f"{name} is set, and the result is {fields['result']}"
        if fields["columns"] % 2:
            return f"{name} is set, and there are {fields['columns']} columns, which are no pairs"
    if opcode == CONTEXT and fields["result"] == 5:
        return "result 5 is no CONTEXT's"
    return _refused_digits(opcode, fields, config)


def _refused_digits(opcode: int, fields: dict[str, int], config: Config) -> str:
    """Why hardware refuses what a product of 15-bit windows asks for, or 16 bits through the table."""
    asked = {name: fields[name] for name in ("digit", "lift", "bits15") if fields[name]}
    if not asked:
        return ""
    name, value = next(iter(asked.items()))
    if "digits" not in config.features:
        return f"{name} is {value}, and there is no such feature"
    if opcode != PRODUCT and (fields["digit"] or fields["lift"]):
        return f"{name} is {value}, which is PRODUCT's alone"
    if fields["digit"] == 3:
        return "digit 3 is unknown"
    if fields["lift"] and not fields["continues"]:
        return "lift is set, and it continues nothing"
    activates = opcode == PRODUCT and fields["result"] == 2 and not fields["multiply"]
    if fields["bits15"] and (opcode == SCORES or (fields["result"] != 1 and not activates)):
        return f"bits15 is set, and the result is {fields['result']}"
    return ""
