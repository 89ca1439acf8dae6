"""Short programs, each of which keeps a few units busy, and how many cycles the RTL takes for them.

test_model.py runs them in RTL; test_measured.py compares the cycle model with these numbers, without RTL.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.shapes import shape_graph
from sta_hw.cycles.timing import MachineTiming
from sta_hw.formats.block_words import block_words
from sta_hw.model.families.layers import LINEAR
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Opcode, Result, Target, ValueFormat, assemble
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS

CONFIGS = {
    "encoder": PRESETS["reference"],
    "decoder": Config(
        rows=8, groups=8, window=32, lanes=8, drain_lanes=4, columns=64, weight_words=1024, parameter_words=256,
        norm_columns=32, features=("decoder",),
    ),
    "kept": dataclasses.replace(PRESETS["ci"], window_words=256, loads_ahead=1),
}  # fmt: skip
MEMORIES = {
    "near": MachineTiming(20),
    "far": MachineTiming(90),
    "half": MachineTiming(50, 0.5),
    "shared": MachineTiming(30, shared=True),
    "half, shared": MachineTiming(50, 0.5, shared=True),
}
POSITIONS = 0x10000
"""Where memory has words that are legal as positions of 1:4, and as bitmaps of 2:4."""
HALT = Instruction(Opcode.HALT)
ALL = {"wait_loads": 1, "wait_matrix": 1, "wait_products": 1, "wait_norms": 1}


def load(target: int, beats: int, rows: int = 1, **fields: int) -> Instruction:
    return Instruction(Opcode.LOAD, {"target": target, "beats": beats, "rows": rows, "stride": 1024, **fields})


def product(config: Config, columns: int, passes: int, **fields: int) -> Instruction:
    """Of windows of eight positions, or as many as are said."""
    depth = fields.get("depth", 8)
    shape = {
        "window_beats": passes * config.groups * depth * config.rows // config.bus_bytes, "n": 1, "depth": depth,
        "columns": columns, "passes": passes, "wide": 1, "count0": passes * columns * depth, "stride0": 1, "count1": 1,
        "count2": 1, "count3": 1, "parameters_step": 1, "result_address": 0x20000, "residual_address": 0x40000,
    }  # fmt: skip
    if how := fields.get("value_format"):
        wide = how == ValueFormat.WIDE_BLOCKS4
        shape["count0"] = block_words(config.block_groups, fields["run"], passes * columns, wide=wide)
    return Instruction(Opcode.PRODUCT, shape | fields)


def norm(width: int, **fields: int) -> Instruction:
    places = {"wide_address": 0x20000, "narrow_address": 0x40000, "parameters_address": 0x60000}
    return Instruction(
        Opcode.NORM, {**places, "width": width, "inverse": round(2**33 / width) & 0xFFFFFFFF, **fields}
    )  # fmt: skip


ENCODERS = {"five tokens": (48, 2, 1, 5, "dense"), "two tiles": (64, 4, 1, 19, "2:4"), "bitmaps": (32, 2, 1, 8, "8:16")}
"""Hidden size, heads, layers, tokens, N:M."""


def encoder(name: str) -> CompiledModel:
    """Its weights are zero: cycles do not depend on them."""
    hidden, heads, layers, tokens, nm = ENCODERS[name]
    patterns = {f"{layer}.{name}": parse_nm(nm) for layer in range(layers) for name in LINEAR.values()}
    graph = shape_graph(hidden, heads, layers, 2 * hidden, patterns)
    return compile_encoder(graph, CONFIGS["encoder"], tokens)


def programs() -> dict[tuple[str, str], list[Instruction]]:
    """By configuration and name."""
    enc, dec, kept = CONFIGS["encoder"], CONFIGS["decoder"], CONFIGS["kept"]
    sparse = {"n": 1, "m_log2": 2, "encoding": 1, "depth": 16, "count0": 32 * 4, "positions_count": 16, **ALL}
    bits = {"n": 2, "m_log2": 2, "encoding": 2, "depth": 16, "count0": 32 * 8, "positions_count": 32, **ALL}
    positions = load(Target.POSITIONS, 64, address=POSITIONS)
    both = {"result": Result.STORE16, "bits15": 1}
    digit = 2 * product(dec, 16, 2)["window_beats"]
    found = {
        ("encoder", "nothing"): [],
        ("encoder", "one load"): [load(Target.VALUES, 16)],
        ("encoder", "loads in rows"): [load(Target.VALUES, 8, 16), load(Target.POSITIONS, 40, 2)],
        ("encoder", "loads of all memories"): [load(t, 64) for t in (0, 1, 2, 3)],
        ("encoder", "many instructions"): [load(Target.TABLE, 1)] * 40,
        ("encoder", "columns"): [product(enc, 32, 1, result=Result.STORE8)],
        ("encoder", "more passes"): [product(enc, 16, 5, result=Result.STORE16)],
        ("encoder", "short passes"): [product(enc, 2, 4, result=Result.STORE8)],
        ("encoder", "a row of products"): [product(enc, 16, 1, result=Result.STORE8)] * 9,
        ("encoder", "more products than queues hold"): [
            *[product(enc, 64, 1, result=Result.STORE8)] * 19, load(Target.VALUES, 12000),
        ],
        ("encoder", "residuals"): [product(enc, 64, 1, result=Result.RESIDUAL)] * 3,
        ("encoder", "transposed"): [product(enc, 64, 1, result=Result.TRANSPOSE)] * 2,
        ("encoder", "unfinished"): [
            product(enc, 16, 2, unfinished=1), product(enc, 16, 2, continues=1, result=Result.STORE16),
        ],
        ("encoder", "one after the other"): [
            load(Target.VALUES, 200), product(enc, 32, 2, result=Result.RESIDUAL, **ALL), norm(32, **ALL),
            load(Target.PARAMETERS, 30, **ALL), product(enc, 8, 3, result=Result.STORE8, **ALL),
        ],
        ("encoder", "beside one another"): [
            product(enc, 32, 2, result=Result.STORE16), load(Target.VALUES, 400), norm(64),
            product(enc, 8, 3, result=Result.STORE8, wait_loads=1), load(Target.TABLE, 50, wait_matrix=2),
        ],
        ("encoder", "indices"): [positions, product(enc, 32, 1, result=Result.STORE8, **sparse)] * 2,
        ("encoder", "bitmaps"): [positions, product(enc, 32, 1, result=Result.STORE8, **bits)] * 2,
        ("encoder", "a norm"): [norm(16)],
        ("encoder", "norms"): [norm(64)] * 3,
        ("encoder", "a wide norm"): [norm(enc.norm_columns + 40)],
        ("decoder", "a wide norm"): [norm(72), norm(16)],
        ("decoder", "gates"): [product(dec, 32, 2, result=Result.ACTIVATE, multiply=1)] * 2,
        ("decoder", "wide gates"): [product(dec, 32, 1, result=Result.STORE16, multiply=1)],
        ("decoder", "rotated"): [product(dec, 32, 2, result=Result.STORE8, rotate=1)],
        ("decoder", "rotated fast"): [product(dec, 32, 1, depth=1, result=Result.STORE8, rotate=1)],
        ("decoder", "rotated and transposed"): [product(dec, 32, 1, result=Result.TRANSPOSE, rotate=1)],
        ("decoder", "the largest"): [
            product(dec, 32, 1, result=Result.BEST, row_first=1), product(dec, 32, 1, result=Result.BEST, row_last=1),
        ],
        ("decoder", "the largest at once"): [
            product(dec, 16, 1, result=Result.BEST, row_first=1, row_last=1), load(Target.TABLE, 4, **ALL),
        ],
        ("decoder", "the largest given"): [product(dec, 32, 1, depth=32, result=Result.BEST, row_last=1)],
        ("decoder", "blocks"): [product(dec, 16, 2, result=Result.STORE16, value_format=1, run=32, depth=32)],
        ("decoder", "wide blocks"): [product(dec, 16, 2, result=Result.STORE16, value_format=2, run=32, depth=32)],
        ("decoder", "blocks of short runs"): [product(dec, 16, 2, result=Result.STORE16, value_format=1, run=8)],
        ("decoder", "digits"): [
            product(dec, 16, 2, **both, digit=1, unfinished=1, window_beats=digit),
            product(dec, 16, 2, **both, digit=2, continues=1, lift=1, window_beats=digit),
        ],
        ("decoder", "short records"): [load(Target.SHORT_PARAMETERS, 60), load(Target.PARAMETERS, 60)],
        ("kept", "loads ahead"): [load(t, 4 + 9 * n) for n, t in enumerate((0, 1, 2, 3, 0, 1, 2, 3))],
        ("kept", "short loads ahead"): [load(Target.VALUES, 2)] * 9,
        ("kept", "windows"): [
            product(kept, 32, 2, keep=1, depth=16, result=Result.STORE8),
            product(kept, 32, 2, kept=1, depth=16, result=Result.STORE16, wait_products=1),
            product(kept, 32, 2, kept=1, depth=16, result=Result.STORE8),
        ],
    }  # fmt: skip
    return {key: [*program, HALT] for key, program in found.items()}


def in_memory(program: list[Instruction], config: Config) -> NDArray[np.uint8]:
    """A memory of zeros and positions, with the program in its middle."""
    image = np.zeros(1 << 20, np.uint8)
    image[POSITIONS : 2 * POSITIONS] = 0x33
    data = np.frombuffer(assemble(program, config), np.uint8)
    image[1 << 19 :][: len(data)] = data
    return image


MEASURED: dict[tuple[str, str], list[tuple[int, int]]] = {
    ("encoder", "nothing"): [(78, 0), (218, 1), (140, -2), (98, 0), (140, -2)],
    ("encoder", "one load"): [(135, 0), (345, 2), (235, -2), (165, 0), (235, -2)],
    ("encoder", "loads in rows"): [(362, 0), (677, 2), (677, -3), (402, 0), (677, -3)],
    ("encoder", "loads of all memories"): [(671, 0), (1091, 2), (1023, -4), (731, 0), (1023, -4)],
    ("encoder", "many instructions"): [(1653, -3), (4555, -8), (2977, -13), (2053, -1), (2977, -13)],
    ("encoder", "columns"): [(586, 0), (866, 4), (838, -4), (626, 0), (838, -4)],
    ("encoder", "more passes"): [(973, 1), (1253, 5), (1733, 2), (1013, 1), (1733, 2)],
    ("encoder", "short passes"): [(718, 0), (998, 4), (1345, -3), (758, 0), (1345, -3)],
    ("encoder", "a row of products"): [(1531, -4), (1778, 4), (2840, -14), (1782, -5), (3352, -14)],
    ("encoder", "more products than queues hold"): [(14668, -1), (14865, -16), (29314, -7), (17117, -2), (34178, -7)],
    ("encoder", "residuals"): [(1869, 1), (2149, 5), (2714, -4), (2107, 31), (4154, -43)],
    ("encoder", "transposed"): [(1373, 0), (1653, 4), (1625, -4), (1413, 0), (1625, -4)],
    ("encoder", "unfinished"): [(843, 1), (1123, 5), (1477, 2), (883, 1), (1477, 2)],
    ("encoder", "one after the other"): [(2839, -21), (3469, 5), (4196, -9), (2937, -1), (4462, -52)],
    ("encoder", "beside one another"): [(2001, -6), (2281, 21), (3501, -3), (2380, 0), (4525, -3)],
    ("encoder", "indices"): [(1210, 0), (1630, 2), (2035, -5), (1270, 0), (2035, -5)],
    ("encoder", "bitmaps"): [(1464, 0), (1884, 2), (2289, -5), (1524, 0), (2289, -5)],
    ("encoder", "a norm"): [(912, 5), (1262, 8), (1207, 1), (962, 5), (1207, 1)],
    ("encoder", "norms"): [(3174, 5), (3664, 8), (4635, -1), (3811, 3), (6257, -79)],
    ("encoder", "a wide norm"): [(6549, 49), (6899, 52), (12495, 749), (9034, 262), (17423, 551)],
    ("encoder", "an encoder of five tokens"): [(8554, 8), (11439, -61), (15129, -23), (9683, 346), (17956, -242)],
    ("encoder", "an encoder of two tiles"): [(14072, 7), (17976, -118), (24865, -103), (17481, 306), (33766, 163)],
    ("encoder", "an encoder of bitmaps"): [(8802, 64), (12914, 76), (15801, 78), (9779, 168), (17768, 15)],
    ("decoder", "a wide norm"): [(1289, 15), (1779, 17), (1904, -2), (1523, -7), (2299, -4)],
    ("decoder", "gates"): [(1290, 0), (1570, 4), (1478, -4), (1330, 0), (1478, -4)],
    ("decoder", "wide gates"): [(519, 1), (799, 5), (707, -3), (559, 1), (707, -3)],
    ("decoder", "rotated"): [(791, 0), (1108, 12), (979, 1), (831, 0), (979, 1)],
    ("decoder", "rotated fast"): [(439, 0), (789, 4), (601, -4), (489, 0), (601, -4)],
    ("decoder", "rotated and transposed"): [(544, 0), (861, 12), (732, 1), (584, 0), (732, 1)],
    ("decoder", "the largest"): [(2001, -1), (2281, 3), (2189, -5), (2041, -1), (2189, -5)],
    ("decoder", "the largest at once"): [(1667, 0), (2017, 4), (1885, -4), (1717, 0), (1885, -4)],
    ("decoder", "the largest given"): [(1613, 1), (1893, 5), (1993, -3), (1653, 1), (1993, -3)],
    ("decoder", "blocks"): [(1479, 1), (1759, 5), (1859, -3), (1519, 1), (1859, -3)],
    ("decoder", "wide blocks"): [(1479, 1), (1759, 5), (1859, -3), (1519, 1), (1859, -3)],
    ("decoder", "blocks of short runs"): [(519, 1), (799, 5), (707, -3), (559, 1), (707, -3)],
    ("decoder", "digits"): [(841, 1), (1121, 5), (1475, -3), (881, 1), (1475, -3)],
    ("decoder", "short records"): [(274, 0), (554, 2), (501, -3), (314, 0), (501, -3)],
    ("kept", "loads ahead"): [(589, -7), (782, 2), (845, -33), (609, -5), (845, -33)],
    ("kept", "short loads ahead"): [(205, -6), (468, -3), (362, -25), (235, -6), (362, -25)],
    ("kept", "windows"): [(3444, -12), (3786, -4), (3680, -40), (3486, -4), (3680, -40)],
}  # fmt: skip
"""Of each program with each of `MEMORIES`: the cycles that the RTL takes, and by how many the model misses them."""
