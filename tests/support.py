"""Shared by tests: random and extreme products of the engine; blocks without handshakes between streams."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from sta_hw.formats import encode, prune
from sta_hw.host.products import Product, Requantization
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Activate, Attention, Embed
from sta_hw.model.part import accelerator_part
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern


def simulate(top: Elaboratable, *benches: Any, limit: int, background: Sequence[Any] = ()) -> None:
    """Run a block in Amaranth's simulator until all `benches` end; an error if that takes more cycles than `limit`."""

    async def end(ctx: Any) -> None:
        for _ in range(limit):
            await ctx.tick()
        raise AssertionError(f"no end within {limit} cycles")

    clocked = Module()
    clocked.submodules.dut = top
    clocked.d.sync += Signal().eq(1)  # a clock, also for what has no register
    simulator = Simulator(clocked)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    for bench in (*background, end):
        simulator.add_testbench(bench, background=True)
    simulator.run()


def port_widths(component: wiring.Component) -> dict[str, int]:
    """Bits of every port of a block, streams' payloads as ``name.payload``."""
    found = {}
    for path, _, value in component.signature.flatten(component):
        found[".".join(map(str, path))] = len(Value.cast(value))
    return found


def random_product(
    config: Config,
    rng: np.random.Generator,
    pattern: Pattern,
    encoding: str | None = None,
    *,
    extreme: bool = False,
    largest: int = 12,
) -> Product:
    """A product of random shape; `extreme` fills it with the values of largest magnitude."""
    depth = int(pattern.m * rng.integers(1, config.window // pattern.m + 1))
    taps = int(rng.integers(1, config.window // depth + 1))
    columns = int(rng.integers(1, largest))
    reduction = int(rng.integers(1, 3 * config.groups * depth + 1))
    unsigned, per_row, wide = (bool(rng.integers(2)) for _ in range(3))
    low, high = (0, 256) if unsigned else (-128, 128)
    activations = rng.integers(low, high, (taps * config.rows, reduction))
    weights = rng.integers(-128, 128, (columns, reduction)).astype(np.int8)
    if extreme:
        activations[:] = rng.choice([low, high - 1])
        weights[:] = rng.choice([-128, 127])
    count = taps * config.rows if per_row else columns
    full = bool(rng.integers(2))
    requantization = Requantization(
        rng.integers(-(2**31), 2**31, count) if full else rng.integers(-5000, 5000, count),
        rng.integers(0, 1 << 16, count),
        rng.integers(0, 8, count) if full else rng.integers(1, 4, count) + (not wide),  # not all results saturate
        per_row=per_row,
        wide=wide,
    )
    encoded = encode(
        prune(weights, pattern), pattern, groups=config.groups, window=config.window, depth=depth, encoding=encoding
    )
    return Product(activations, encoded, taps, requantization, unsigned)


def covering_products(config: Config, seed: int, *, limit: int | None = None) -> list[Product]:
    """One product per pattern and encoding the hardware has, and a few extreme ones, shuffled."""
    rng = np.random.default_rng(seed)
    choices = [(p, e) for p in config.patterns for e in ((None,) if p.m == 1 else config.encodings)]
    order = rng.permutation(len(choices))[:limit]
    products = [random_product(config, rng, *choices[i]) for i in order]
    products += [random_product(config, rng, *choices[i], extreme=True) for i in order[:8]]
    return products


def hears_ctrl_c() -> None:
    """For a child process, which inherits that Ctrl-C is ignored where the tests run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def embed(model: Graph, ids: list[int]) -> np.ndarray:
    """What the accelerator takes for token ids: (tokens, width)."""
    return accelerator_part(model).embed("ids", ids)


def inner(model: Graph) -> Graph:
    """The accelerator's part of a network."""
    return accelerator_part(model).inner


def in_fp32(model: Graph, ids: list[int]) -> np.ndarray:
    """What the accelerator's part of a network gives for token ids in fp32."""
    part = accelerator_part(model)
    return part.run(part.embed("ids", ids))


def save_bert(model: Graph, folder: Path) -> None:
    """A random model as Hugging Face's BERT keeps one; its pooling is not kept."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    first, tables = next(iter(model.linears)), [o for o in model.operations if isinstance(o, Embed)]
    attention = next(o for o in model.operations if isinstance(o, Attention))
    function = next(o.function for o in model.operations if isinstance(o, Activate))
    described = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": model.linears[first].weight.shape[1],
        "num_attention_heads": attention.heads, "num_hidden_layers": model.layers, "hidden_act": function,
        "intermediate_size": len(model.linears["0.intermediate.dense"].weight), "layer_norm_eps": 1e-12,
        **dict(zip(("vocab_size", "max_position_embeddings", "type_vocab_size"), (len(t.table) for t in tables),
                   strict=True)),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(described))
    save_file({name: np.ascontiguousarray(t) for name, t in model.tensors.items()}, folder / "model.safetensors")


class Streamed(wiring.Component):
    """A block that takes operands every cycle and has no handshake, between streams; it is always ready.

    Parameters
    ----------
    block : Component
        With a `latency` in cycles.
    inputs, outputs : dict of str to int
        Its signed members, and their widths.
    """

    def __init__(self, block: Any, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        self.block, self.inputs, self.outputs = block, inputs, outputs
        given, results = (
            stream.Signature(data.StructLayout({n: signed(width) for n, width in members.items()}))
            for members in (inputs, outputs)
        )
        super().__init__({"source": In(given), "target": Out(results)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.block = self.block
        valid = Signal(self.block.latency)
        m.d.sync += valid.eq(Cat(self.source.valid, valid))
        m.d.comb += [
            self.source.ready.eq(1),
            *(getattr(self.block, n).eq(self.source.payload[n]) for n in self.inputs),
            *(self.target.payload[n].eq(getattr(self.block, n)) for n in self.outputs),
            self.target.valid.eq(valid[-1]),
        ]
        return m
