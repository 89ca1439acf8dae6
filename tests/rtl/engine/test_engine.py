"""The engine against the reference: sizes, every N:M, both encodings, stalls, extreme values, faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from support import covering_products, random_product

from sim.cocotb_runner import Case, run_cocotb
from sta_hw.errors import CheckError
from sta_hw.formats import encode, prune
from sta_hw.host import beats
from sta_hw.host.products import Product, Requantization, tile_batch, tile_linear
from sta_hw.rtl.emit import emit_verilog
from sta_hw.rtl.engine.engine import Engine
from sta_hw.rtl.primitives.layouts import Fault
from sta_hw.run.rtl import EngineModel, reference_results
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern, parse_nm

COCOTB = {
    "1x1": Config(rows=1, groups=1, window=4, columns=16),
    "3x2": Config(rows=3, groups=2, window=8, columns=32),
    "16x3": Config(rows=16, groups=3, window=16, columns=16, lanes=4),
    "3x8": Config(rows=3, groups=8, window=32, columns=16, lanes=1, multiplier="lut"),
}
NATIVE = {
    "16x8": Config(columns=64),
    "5x3": Config(rows=5, groups=3, window=32, columns=64, window_memory="distributed"),
    "4x2 lanes 4": Config(rows=4, groups=2, window=16, lanes=4, columns=16),
    "8x4 lanes 2": Config(rows=8, groups=4, window=8, lanes=2, columns=16),
    "index only": Config(rows=2, groups=2, encodings=("index",), columns=16),
    "bitmap only": Config(rows=2, groups=2, encodings=("bitmap",), columns=16),
    "2:4 and dense": Config(rows=2, groups=2, nm=("2:4", "dense"), columns=16),
    "dsp multipliers": Config(rows=2, groups=3, multiplier="dsp", columns=16),
    "dense only": Config(rows=2, groups=2, nm=("dense",), columns=16),
}


def merged(products: list[Product], config: Config) -> dict[str, np.ndarray]:
    """The input beats of several products, one after the other."""
    streams = [p.streams(config) for p in products]
    return {name: np.concatenate([s[name] for s in streams]) for name in streams[0]}


def check_cocotb(config: Config, simulator: str, limit: int | None, seed: int = 5) -> None:
    """A few dozen products in one go without stalls, and again with them."""
    products = covering_products(config, seed, limit=limit)
    expected = np.concatenate([reference_results(p, config) for p in products])
    count = {"results": len(expected) * config.rows // config.lanes, "status": len(products)}
    inputs = merged(products, config)
    cases = [Case(inputs, count, stall, limit=200_000) for stall in (0.0, 0.3)]
    for outputs in run_cocotb(Engine(config), "engine", cases, simulator=simulator):
        values, _ = beats.result_values(outputs["results"], config)
        np.testing.assert_array_equal(values, expected)
        assert not outputs["status"].any()


@pytest.mark.parametrize("name", ["1x1", "3x2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("16x3", "3x8"))])
def test_cocotb_on_verilator(name: str) -> None:
    check_cocotb(COCOTB[name], "verilator", 40 if name != "16x3" else None)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_cocotb_on_icarus() -> None:
    check_cocotb(COCOTB["3x2"], "icarus", 12)


@pytest.mark.parametrize("name", NATIVE)
def test_every_pattern_and_encoding(name: str) -> None:
    config = NATIVE[name]
    model = EngineModel(config)
    for stall, seed in ((0.0, 1), (0.3, 2), (0.7, 3)):
        model.run(covering_products(config, seed), stall=stall, seed=seed)


def without_queues(config: Config) -> EngineModel:
    """The engine as boards with a serial line have it: commands wait in their stream until all have taken them."""
    return EngineModel(config, emit_verilog(Engine(config, plain=True, ahead=False), "engine"))


@pytest.mark.parametrize("name", ["4x2 lanes 4", "8x4 lanes 2", "2:4 and dense"])
def test_commands_that_wait_in_their_stream(name: str) -> None:
    config = NATIVE[name]
    model = without_queues(config)
    for stall, seed in ((0.0, 1), (0.3, 2), (0.7, 3)):
        model.run([p for p in covering_products(config, seed) if p.taps == 1], stall=stall, seed=seed)


def test_every_n_at_m_4_and_16_is_covered() -> None:
    patterns = set(NATIVE["16x8"].patterns)
    assert {Pattern(n, m) for m in (4, 16) for n in range(1, m + 1)} <= patterns
    used = {(p.weights.pattern, p.weights.encoding) for p in covering_products(NATIVE["16x8"], 1)}
    assert {(Pattern(n, m), e) for m in (4, 16) for n in range(1, m + 1) for e in ("index", "bitmap")} <= used


def test_saturation_and_wrapping_at_the_largest_reduction() -> None:
    """255 * -128 over 8,192 elements; requantized at both ends of the range."""
    config = NATIVE["4x2 lanes 4"]
    weights = np.full((3, 8192), -128, np.int8)
    weights[1] = 127
    weights[2, ::2] = 127
    activations = np.full((4, 8192), 255)
    encoded = encode(weights, Pattern(1, 1), groups=2, window=16)
    model = EngineModel(config)
    for wide in (False, True):
        requantization = Requantization(
            np.array([-(2**31), 2**31 - 1, 0]), np.array([65535, 65535, 1]), np.array([0, 0, 7]), wide=wide
        )
        run = model.run([Product(activations, encoded, 1, requantization, unsigned=True)], stall=0.2)
        limit = 32767 if wide else 127
        assert run.results[0].min() == -limit and run.results[0].max() == limit


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("16x8", EngineModel),
        ("4x2 lanes 4", EngineModel),
        ("8x4 lanes 2", EngineModel),
        ("4x2 lanes 4", without_queues),
    ],
)
def test_products_that_continue_with_and_without_rescaling(name: str, make: Callable[[Config], EngineModel]) -> None:
    """Chains of unfinished products, others in between that leave the stored sums alone."""
    config = NATIVE[name]
    rng = np.random.default_rng(7)
    products = []
    for columns, links in ((1, 2), (5, 3), (16, 4), (3, 2)):
        parameters = Requantization(
            rng.integers(-500, 500, columns), rng.integers(0, 1 << 16, columns), rng.integers(1, 3, columns), wide=True
        )
        for link in range(links):
            reduction = int(rng.integers(1, 2 * config.groups * config.window))
            weights = rng.integers(-128, 128, (columns, reduction)).astype(np.int8)
            encoded = encode(weights, Pattern(1, 1), groups=config.groups, window=config.window)
            activations = rng.integers(-128, 128, (config.rows, reduction))
            growth = rng.integers(0, 32 if link == 1 else 3, config.rows) if link and (link + columns) % 2 else None
            if growth is not None and columns == 3:
                growth[:] = 0
            products.append(
                Product(
                    activations, encoded, 1, parameters, continues=link > 0, unfinished=link < links - 1, growth=growth
                )
            )
            single = rng.integers(-128, 128, (4, 5)).astype(np.int8)
            between = encode(single, Pattern(1, 1), groups=config.groups, window=config.window)
            some = Requantization(np.zeros(4, np.int64), np.full(4, 5000), np.zeros(4, np.int64))
            products.append(Product(rng.integers(-128, 128, (config.rows, 5)), between, 1, some))
    model = make(config)
    for stall, seed in ((0.0, 1), (0.4, 2)):
        model.run(products, stall=stall, seed=seed)


def test_sixteen_bit_activations_in_two_planes() -> None:
    config = NATIVE["4x2 lanes 4"]
    rng = np.random.default_rng(0)
    model = EngineModel(config)
    for reduction in (1, 7, 33):
        activations = rng.integers(0, 1 << 16, (5, config.rows, reduction))
        weights = rng.integers(-128, 128, (5, 6, reduction)).astype(np.int8)
        same = np.ones(config.rows, np.int64)
        per_row = Requantization(same * 0, same * 40_000, same * 3, per_row=True)
        tiles = list(tile_batch(config, activations, weights, [per_row] * 5, unsigned=True, planes=2))
        assert all(t[0].widen_at for t in tiles)
        run = model.run([t[0] for t in tiles], stall=0.2)
        for (_, members), got in zip(tiles, run.results, strict=True):
            for i, member in enumerate(members):
                sums = weights[member].astype(np.int64) @ activations[member].T
                scaled = np.clip((sums * 40_000 + (1 << 23)) >> 24, -127, 127)
                np.testing.assert_array_equal(got[i :: len(members)], scaled)


def test_linear_tiles_cover_the_matrix() -> None:
    """More tokens than rows and more columns than the accumulators: equal to plain numpy."""
    config = Config(rows=4, groups=2, window=16, columns=16)
    rng = np.random.default_rng(3)
    for tokens, reduction, columns in ((9, 70, 37), (1, 1, 1), (4, 33, 16), (5, 32, 40)):
        x = rng.integers(-128, 128, (tokens, reduction))
        weights = rng.integers(-128, 128, (columns, reduction)).astype(np.int8)
        bias = rng.integers(-1000, 1000, columns)
        requantization = Requantization(bias, np.full(columns, 30_000), np.full(columns, 2))
        tiles = list(tile_linear(config, x, weights, requantization))
        run = EngineModel(config).run([t[0] for t in tiles])
        result = np.zeros((tokens, columns), np.int64)
        for (_, rows, part), got in zip(tiles, run.results, strict=True):
            result[rows, part] = got.T[: rows.stop - rows.start]
        exact = ((x @ weights.T.astype(np.int64) + bias) * 30_000 + (1 << 19)) >> 20
        np.testing.assert_array_equal(result, np.clip(exact, -127, 127))


def test_a_mismatch_is_reported_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    config = NATIVE["4x2 lanes 4"]
    products = [random_product(config, np.random.default_rng(i), parse_nm("2:4")) for i in range(3)]

    def wrong(product: Product, config: Config, stored: np.ndarray | None) -> np.ndarray:
        result = reference_results(product, config, stored)
        if product is products[1]:
            result[0, 2] += 1
        return result

    monkeypatch.setattr("sta_hw.run.rtl.reference_results", wrong)
    with pytest.raises(CheckError, match=r"query, tile 1, row 2, column 0: expected -?\d+, got -?\d+ \(1 of"):
        EngineModel(config).run(products, layer="query")


class TestFaults:
    """Streams that do not match their command are flagged, and the next product is right."""

    config = Config(rows=2, groups=2, window=16, columns=16)

    def run(
        self, product: Product, faulty: dict[str, np.ndarray], fault: Fault, *, results: bool = True,
        make: Callable[[Config], EngineModel] = EngineModel,
    ) -> None:  # fmt: skip
        good = random_product(self.config, np.random.default_rng(9), parse_nm("4:16"), "bitmap")
        streams = [faulty, good.streams(self.config)]
        inputs = {name: np.concatenate([s[name] for s in streams]) for name in faulty}
        parts = self.config.rows // self.config.lanes
        expected = reference_results(good, self.config)
        columns = (product.weights.columns if results else 0) + good.weights.columns
        model = make(self.config)
        for stall in (0.0, 0.4):
            outcome = model._model.run(
                inputs, {"results": columns * parts, "status": 2}, stall=stall, seed=4, linger=30
            )
            assert outcome.outputs["status"][:, 0].tolist() == [fault.value, 0]
            values, _ = beats.result_values(outcome.outputs["results"], self.config)
            np.testing.assert_array_equal(values[-len(expected) :], expected)

    def product(self, encoding: str, nm: str = "2:4") -> Product:
        weights = np.random.default_rng(1).integers(-128, 128, (5, 60)).astype(np.int8)
        pattern = parse_nm(nm)
        encoded = encode(prune(weights, pattern), pattern, groups=2, window=16, encoding=encoding)
        ones = np.ones(5, np.int64)
        return Product(np.ones((2, 60), np.int64), encoded, 1, Requantization(ones, ones, ones))

    @pytest.mark.parametrize("encoding", ["index", "bitmap"])
    @pytest.mark.parametrize("stream", ["values", "positions"])
    def test_a_stream_that_ends_early(self, encoding: str, stream: str) -> None:
        product = self.product(encoding)
        streams = product.streams(self.config)
        for kept in (1, len(streams[stream]) // 2, len(streams[stream]) - 1):
            cut = streams[stream][:kept].copy()
            cut[-1, -1] = streams[stream][-1, -1] | cut[-1, -1]  # the last flag is the top bit
            top = self.config.groups * (8 if stream == "values" else self.config.window)
            cut[-1, top // 32] |= np.uint32(1 << top % 32)
            fault = Fault.VALUES_SHORT if stream == "values" else Fault.POSITIONS_SHORT
            self.run(product, streams | {stream: cut}, fault)

    @pytest.mark.parametrize("encoding", ["index", "bitmap"])
    @pytest.mark.parametrize("stream", ["values", "positions"])
    def test_a_stream_that_runs_on(self, encoding: str, stream: str) -> None:
        product = self.product(encoding)
        streams = product.streams(self.config)
        long = np.concatenate([streams[stream][:-1], streams[stream][:1], streams[stream][-1:]])
        if stream == "positions" and encoding == "bitmap":
            long = np.concatenate([streams[stream][:-1], streams[stream][-1:], streams[stream][-1:]])
            long[-2, 1] &= ~np.uint32(1)
        fault = Fault.VALUES_LONG if stream == "values" else Fault.POSITIONS_LONG
        self.run(product, streams | {stream: long}, fault)

    @pytest.mark.parametrize(
        ("change", "nm"),
        [
            *(
                (change, nm)
                for change in ("one more", "one more at the end", "one less", "empty")
                for nm in ("2:4", "2:16")
            ),
            ("moved", "2:4"),  # at 2:16 the sub-group is the window, where any two bits are right
        ],
    )
    def test_a_bitmap_that_is_not_n_of_m(self, change: str, nm: str) -> None:
        product = self.product("bitmap", nm)
        positions = product.weights.positions.copy()
        word = int(positions[3, 1])
        set_bits = [i for i in range(16) if word >> i & 1]
        clear = next(i for i in range(16) if not word >> i & 1)
        last_clear = max(i for i in range(16) if not word >> i & 1)
        far = next((i for i in range(16) if not word >> i & 1 and i // 4 != set_bits[0] // 4), clear)
        positions[3, 1] = {
            "one more": word | 1 << clear,
            "one more at the end": word | 1 << last_clear,
            "one less": word & ~(1 << set_bits[-1]),
            "moved": (word & ~(1 << set_bits[0])) | 1 << far,
            "empty": 0,
        }[change]
        last = np.arange(len(positions)) == len(positions) - 1
        self.run(
            product,
            product.streams(self.config) | {"positions": beats.join([(positions, 16), (last, 1)])},
            Fault.POSITIONS_WRONG,
        )

    @pytest.mark.parametrize(
        ("make", "field"),
        [
            (make, field)
            for make in (EngineModel, without_queues)
            for field in (
                {"columns": 0}, {"passes": 0}, {"taps": 0}, {"depth": 0}, {"n": 0}, {"n": 5}, {"m_log2": 6},
                {"depth": 18}, {"taps": 5}, {"encoding": 3}, {"encoding": 0}, {"columns": 17},
                {"m_log2": 5, "depth": 32},
            )
            if make is EngineModel or "taps" not in field  # which count as 1 without queues, see below
        ],
    )  # fmt: skip
    def test_a_command_out_of_range_takes_nothing(
        self, make: Callable[[Config], EngineModel], field: dict[str, int]
    ) -> None:
        product = self.product("index")
        command = {"passes": 2, "depth": 4} | field if "columns" in field or "taps" in field else field
        nothing = {name: array[:0] for name, array in product.streams(self.config).items()}
        faulty = nothing | {"command": beats.command_beat(product.weights, **command)}
        self.run(product, faulty, Fault.COMMAND, results=False, make=make)

    @pytest.mark.parametrize("taps", [0, 3, 5])
    def test_taps_count_as_one_where_there_are_none(self, taps: int) -> None:
        """Whatever a host writes there, the product ends, with the results of one tap."""
        good = random_product(self.config, np.random.default_rng(9), parse_nm("4:16"), "bitmap")
        assert good.taps == 1
        flags = {"unsigned": int(good.unsigned), "wide_result": int(good.requantization.wide),
                 "per_row": int(good.requantization.per_row)}  # fmt: skip
        streams = good.streams(self.config)
        np.testing.assert_array_equal(beats.command_beat(good.weights, taps=1, **flags), streams["command"])
        streams |= {"command": beats.command_beat(good.weights, taps=taps, **flags)}
        expected = reference_results(good, self.config)
        count = {"results": len(expected) * self.config.rows // self.config.lanes, "status": 1}
        outcome = without_queues(self.config)._model.run(streams, count, stall=0.3)
        assert not outcome.outputs["status"].any()
        np.testing.assert_array_equal(beats.result_values(outcome.outputs["results"], self.config)[0], expected)

    def test_a_fault_becomes_a_failed_check(self) -> None:
        product = self.product("bitmap")
        product.weights.positions[0, 0] = 0xFFFF
        with pytest.raises(CheckError, match="product, tile 0: the engine reports fault 0x10"):
            EngineModel(self.config).run([product])


def test_timing_diagram() -> None:
    """The cycle numbers of the diagram in docs/architecture.md, and the latency the manifest gives."""
    pattern = parse_nm("2:4")
    for config in (NATIVE["16x8"], NATIVE["4x2 lanes 4"], COCOTB["1x1"]):
        reduction = config.groups * config.window
        weights = prune(np.ones((3, reduction), np.int8), pattern)
        encoded = encode(weights, pattern, groups=config.groups, window=config.window)
        ones = np.ones(3, np.int64)
        product = Product(np.ones((config.rows, reduction), np.int64), encoded, 1, Requantization(ones, ones, ones))
        parts = config.rows // config.lanes
        model = EngineModel(config)
        outcome = model._model.run(product.streams(config), {"results": 3 * parts, "status": 1})
        steps, latency = encoded.steps, Engine(config).latency
        for column in (1, 2):  # the first waits in the decoder for its window
            completed = outcome.cycles["values"][(column + 1) * steps - 1]
            assert outcome.cycles["results"][column * parts] - completed == latency
        if config is NATIVE["16x8"]:
            assert (steps, latency) == (8, 24)


def test_a_result_ring_that_fills_up_holds_the_engine_back() -> None:
    """One-cycle columns against a reader that takes one result in twenty cycles."""
    config = Config(rows=4, groups=2, window=16, columns=4)
    rng = np.random.default_rng(7)
    single = encode(np.eye(60, 32, dtype=np.int8), parse_nm("1:16"), groups=2, window=16)
    ones = np.ones(60, np.int64)
    requantization = Requantization(ones * 0, ones * 4096, ones * 0, wide=True)
    products = [Product(rng.integers(-128, 128, (4, 32)), single, 1, requantization) for _ in range(3)]
    expected = np.concatenate([reference_results(p, config) for p in products])
    outcome = EngineModel(config)._model.run(
        merged(products, config), {"results": len(expected), "status": len(products)}, stall={"results": 0.95}
    )
    values, _ = beats.result_values(outcome.outputs["results"], config)
    np.testing.assert_array_equal(values, expected)


def test_short_passes_wait_for_their_partial_sums() -> None:
    """One to six columns over several passes, one cycle each: the spacing that the accumulators need."""
    config = NATIVE["4x2 lanes 4"]
    rng = np.random.default_rng(8)
    products = []
    for columns in (1, 2, 3, 4, 5, 6, 1, 16):
        for pattern in (parse_nm("1:16"), parse_nm("1:2")):
            weights = np.zeros((columns, 7 * 32), np.int8)
            weights[:, :: pattern.m] = rng.integers(-128, 128, weights[:, :: pattern.m].shape)
            depth = pattern.m
            encoded = encode(weights, pattern, groups=2, window=16, depth=depth)
            ones = np.ones(columns, np.int64)
            activations = rng.integers(-128, 128, (4, 7 * 32))
            requantization = Requantization(ones * 0, ones * 4096, ones * 0, wide=True)
            products.append(Product(activations, encoded, 1, requantization))
    for stall in (0.0, 0.3):
        EngineModel(config).run(products, stall=stall)
