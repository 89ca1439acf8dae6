"""One encoder layer, INT8 and pruned, through the simulated RTL.

Every product and the softmax run on the hardware; LayerNorm, GELU, the residual additions and moving
data from one product to the next are done here, in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import Config, Pattern
from ..errors import InputError
from ..formats import best_encoding, prune
from ..reference.requantizer import quantize_factor
from ..runtime.products import Requantization, tile_batch, tile_linear
from ..runtime.rtl import EngineModel, SoftmaxModel
from .minilm import HEADS, MiniLM, calibration_sentences, gelu

__all__ = ["LayerRun", "ProductRow", "QuantizedLayer", "checked_tokens"]

LINEAR = (
    ("query", "attention.self.query", "input", "query"),
    ("key", "attention.self.key", "input", "key"),
    ("value", "attention.self.value", "input", "value"),
    ("attention output", "attention.output.dense", "context", "attention_output"),
    ("feed-forward 1", "intermediate.dense", "attention_norm", "intermediate"),
    ("feed-forward 2", "output.dense", "activated", "feed_forward"),
)
"""Linear layers: name in the table, name in the checkpoint, input tensor, output tensor."""


@dataclass(frozen=True)
class ProductRow:
    """One line of the demo's table.

    Attributes
    ----------
    shape : str
        Tokens x reduction x columns, times heads.
    cycles : int
        From the first beat in to the last beat out, in RTL; the softmax has no ideal.
    ideal : float
        Multiply-accumulates that N:M leaves, over multipliers.
    cosine : float
        With the fp32 tensor of the same pruned weights.
    """

    product: str
    shape: str
    nm: str
    encoding: str
    cycles: int
    ideal: float
    fraction: float
    cosine: float


@dataclass(frozen=True)
class LayerRun:
    """What the demo shows."""

    rows: list[ProductRow]
    output: NDArray[np.float32]
    cosine_same_weights: float
    cosine_dense: float

    def figures(self) -> dict[str, object]:
        """The same as plain JSON types."""
        matrix = [r for r in self.rows if r.ideal]
        cycles, ideal = sum(r.cycles for r in matrix), sum(r.ideal for r in matrix)
        return {
            "products": [asdict(r) for r in self.rows],
            "engine_cycles": cycles,
            "ideal_cycles": ideal,
            "fraction_of_ideal": ideal / cycles,
            "cosine_with_fp32_of_the_same_weights": self.cosine_same_weights,
            "cosine_with_dense_fp32": self.cosine_dense,
        }


def cosine(a: NDArray, b: NDArray) -> float:
    """Cosine of two tensors as flat vectors."""
    x, y = np.asarray(a, np.float64).reshape(-1), np.asarray(b, np.float64).reshape(-1)
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def checked_tokens(model: MiniLM, config: Config, text: str) -> list[int]:
    """Token ids of a sentence that this configuration can run.

    Raises
    ------
    InputError
        If it is empty, or has more tokens than share one softmax exponent and one pass of P x V.
    """
    if not text.strip():
        raise InputError("the text is empty; give a sentence with --text.")
    ids = model.token_ids(text)
    limit = min(config.softmax_block, config.groups * config.window)
    if len(ids) > limit:
        raise InputError(
            f"the text has {len(ids)} tokens; this command runs up to {limit} (softmax_block, and groups x window)."
        )
    return ids


class QuantizedLayer:
    """Layer `layer` of the model: weights pruned to `pattern`, INT8; scales from calibration.

    Parameters
    ----------
    model : MiniLM
    config : Config
    pattern : Pattern
        Group magnitude, one shot.
    layer : int
    wide : bool
        16-bit probabilities.

    Raises
    ------
    ConfigError
        If the hardware does not run `pattern`.
    """

    def __init__(self, model: MiniLM, config: Config, pattern: Pattern, *, layer: int = 0, wide: bool = False) -> None:
        config.require(pattern)
        self.model, self.config, self.pattern, self.layer, self.wide = model, config, pattern, layer, wide
        self.pruned = {name: prune(model.linear(layer, name)[0], pattern) for _, name, _, _ in LINEAR}
        self.weights: dict[str, tuple[NDArray[np.int8], NDArray[np.float64]]] = {}
        for name, weight in self.pruned.items():
            scale = np.maximum(np.abs(weight).max(1), 1e-9).astype(np.float64) / 127
            self.weights[name] = (np.round(weight / scale[:, None]).astype(np.int8), scale)
        self.largest: dict[str, float] = {}
        for sentence in calibration_sentences():
            tensors = self._reference(model.embed(model.token_ids(sentence)), self.pruned)
            for name, value in tensors.items():
                self.largest[name] = max(self.largest.get(name, 0.0), float(np.abs(value).max()))

    def _reference(self, x: NDArray, weights: dict[str, NDArray] | None) -> dict[str, NDArray]:
        found = {"input": x}
        # Layers below the chosen one stay dense, so that its input is a real one.
        for below in range(self.layer):
            found = self.model.layer(below, x)
            x = found["output"]
        return self.model.layer(self.layer, x, weights)

    def _scale(self, name: str, levels: int = 127) -> float:
        return self.largest[name] / levels

    def _quantized(self, name: str, value: NDArray) -> NDArray[np.int8]:
        return np.clip(np.round(value / self._scale(name)), -127, 127).astype(np.int8)

    def run(
        self,
        text: str,
        engine: EngineModel,
        softmax: SoftmaxModel,
        *,
        stall: float = 0.0,
        report: Callable[[str], None] = lambda _: None,
    ) -> LayerRun:
        """Run the layer for a sentence.

        Raises
        ------
        InputError
            If the sentence has too many tokens for one softmax block.
        CheckError
            If any result of the RTL differs from the reference.
        """
        ids = checked_tokens(self.model, self.config, text)
        fp32 = self._reference(self.model.embed(ids), self.pruned)
        dense = self._reference(self.model.embed(ids), None)
        self._engine, self._softmax, self._stall, self._report = engine, softmax, stall, report
        self._rows: list[ProductRow] = []

        x = fp32["input"]
        quantized = self._quantized("input", x)
        query, key, value = (self._linear(line, quantized, fp32, wide=False) for line in LINEAR[:3])
        context, context_scale = self._attention(query, key, value, fp32)
        attention = self._linear(LINEAR[3], context, fp32, wide=True, input_scale=context_scale)
        scale16 = self._scale("attention_output", 32767)
        normed = self.model.norm(self.layer, "attention.output", attention * scale16 + x)
        first = self._linear(LINEAR[4], self._quantized("attention_norm", normed), fp32, wide=True)
        activated = gelu(first * self._scale("intermediate", 32767))
        second = self._linear(LINEAR[5], self._quantized("activated", activated), fp32, wide=True)
        output = self.model.norm(self.layer, "output", second * self._scale("feed_forward", 32767) + normed)
        output = output.astype(np.float32)
        return LayerRun(self._rows, output, cosine(output, fp32["output"]), cosine(output, dense["output"]))

    def _linear(
        self, line: tuple[str, str, str, str], x: NDArray, fp32: dict, *, wide: bool, input_scale: float | None = None
    ) -> NDArray[np.int64]:
        """One linear layer; its result in units of the output's scale (16 bits if `wide`)."""
        label, name, source, target = line
        self._report(label)
        weights, weight_scale = self.weights[name]
        bias = self.model.linear(self.layer, name)[1]
        input_scale = self._scale(source) if input_scale is None else input_scale
        output_scale = self._scale(target, 32767 if wide else 127)
        multiplier, shift = quantize_factor(input_scale * weight_scale / output_scale)
        # Saturate: a bias that exceeds 32 bits belongs to a channel without weights.
        bias_units = np.clip(np.round(bias / (input_scale * weight_scale)), -(2**31), 2**31 - 1)
        requantization = Requantization(
            bias_units.astype(np.int64), multiplier.astype(np.int64), shift.astype(np.int64), wide=wide
        )
        result = np.zeros((len(x), len(weights)), np.int64)
        tiles = list(tile_linear(self.config, x, weights, requantization, pattern=self.pattern))
        run = self._engine.run([t[0] for t in tiles], layer=label, stall=self._stall)
        for (_, rows, columns), part in zip(tiles, run.results, strict=True):
            result[rows, columns] = part.T[: rows.stop - rows.start]
        work = len(x) * weights.size * self.pattern.density
        shape = f"{len(x)} x {weights.shape[1]} x {weights.shape[0]}"
        self._add(label, shape, self.pattern, run.cycles, work, cosine(result, fp32[target]))
        return result

    def _add(
        self, label: str, shape: str, pattern: Pattern | None, cycles: int, work: float, similarity: float
    ) -> None:
        ideal = work / self.config.macs
        encoding = best_encoding(pattern, self.config.window) if pattern else ""
        self._rows.append(
            ProductRow(label, shape, str(pattern or ""), encoding, cycles, ideal, ideal / cycles, similarity)
        )

    def _attention(self, query: NDArray, key: NDArray, value: NDArray, fp32: dict) -> tuple[NDArray[np.int64], float]:
        """Scores, softmax and weighted values of all heads; the result and its scale."""
        tokens, width = query.shape
        size = width // HEADS
        rows = self.config.rows
        blocks = math.ceil(tokens / rows)
        q, k, v = (t.reshape(tokens, HEADS, size).transpose(1, 0, 2) for t in (query, key, value))
        dense = Pattern(1, 1)
        work = HEADS * tokens * tokens * size

        def by_block(per_head: NDArray) -> NDArray:
            """(heads, tokens, n) -> (heads * blocks, rows, n), completed with zeros."""
            padded = np.zeros((HEADS, blocks * rows, per_head.shape[-1]), np.int64)
            padded[:, :tokens] = per_head
            return padded.reshape(HEADS * blocks, rows, -1)

        def gather(tiles: list, results: list, columns: int) -> NDArray:
            """Results back to (heads, tokens, columns)."""
            full = np.zeros((HEADS * blocks, rows, columns), np.int64)
            for (_, members), part in zip(tiles, results, strict=True):
                full[members] = part.reshape(columns, len(members), rows).transpose(1, 2, 0)
            return full.reshape(HEADS, blocks * rows, columns)[:, :tokens]

        # Q x K^T, requantized to the softmax's logits: base-2 units with 6 fraction bits.
        self._report("Q x K^T")
        factor = self._scale("query") * self._scale("key") / math.sqrt(size) * math.log2(math.e) * 64
        multiplier, shift = quantize_factor(factor)
        same = np.ones(tokens, np.int64)
        scores_to = Requantization(same * 0, same * int(multiplier), same * int(shift), wide=True)
        tiles = list(
            tile_batch(self.config, by_block(q), np.repeat(k, blocks, 0).astype(np.int8), [scores_to] * HEADS * blocks)
        )
        run = self._engine.run([t[0] for t in tiles], layer="Q x K^T", stall=self._stall)
        logits = gather(tiles, run.results, tokens)
        shape = f"{tokens} x {size} x {tokens}, {HEADS} heads"
        self._add("Q x K^T", shape, dense, run.cycles, work, cosine(logits, fp32["scores"]))

        self._report("softmax")
        gain = min(7, max(0, math.floor(math.log2(self.largest["value"] / self.largest["context"]))))
        found, cycles = self._softmax.run(
            list(logits.reshape(HEADS * tokens, tokens)), wide=self.wide, gain=gain, stall=self._stall
        )
        probabilities = np.stack([r.probabilities for r in found]).reshape(HEADS, tokens, tokens)
        span = int(cycles["totals"][-1] - cycles["logits"][0] + 1)
        normalised = probabilities / np.maximum(probabilities.sum(-1, keepdims=True), 1)
        self._add(
            "softmax", f"{HEADS * tokens} rows of {tokens}", None, span, 0, cosine(normalised, fp32["probabilities"])
        )

        # P x V: rows are queries, columns are the head's dimensions; 1/sum is the row's requantization.
        self._report("P x V")
        factors = np.array([(r.multiplier, r.shift) for r in found]).reshape(HEADS, tokens, 2)
        per_row = by_block(factors)
        requantization = [
            Requantization(np.zeros(rows, np.int64), block[:, 0], block[:, 1], per_row=True) for block in per_row
        ]
        transposed = np.repeat(v.transpose(0, 2, 1), blocks, 0).astype(np.int8)
        tiles = list(
            tile_batch(
                self.config, by_block(probabilities), transposed, requantization,
                unsigned=True, planes=2 if self.wide else 1,
            )
        )  # fmt: skip
        run = self._engine.run([t[0] for t in tiles], layer="P x V", stall=self._stall)
        context = gather(tiles, run.results, size).transpose(1, 0, 2).reshape(tokens, width)
        shape = f"{tokens} x {tokens} x {size}, {HEADS} heads"
        self._add("P x V", shape, dense, run.cycles, work, cosine(context, fp32["context"]))
        return context, self._scale("value") / 2**gain
