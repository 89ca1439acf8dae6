"""The parameters of a generated accelerator: one frozen, validated object."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ..arguments import several, whole
from ..errors import ConfigError, InputError
from .accelerator_shape import accelerator_problems
from .block_groups import block_groups, wide_block_groups
from .features import ALL_OF_DECODERS, FEATURES, in_order
from .patterns import DENSE, SUPPORTED_M, Pattern, listed, parse_nm, patterns_in_order

__all__ = ["ENCODINGS", "MULTIPLIERS", "SUPPORTED_WINDOWS", "WINDOW_MEMORIES", "Config"]

SUPPORTED_WINDOWS = (4, 8, 16, 32)
"""Activations held by one processing element (window lengths)."""
MULTIPLIERS = ("auto", "dsp", "lut", "pair", "dsp-pair", "mac16", "nexus", "gowin")
_VECTOR_MULTIPLIERS = {"pair": "auto", "dsp-pair": "dsp", "mac16": "lut"}
WINDOW_MEMORIES = ("block", "distributed")
ENCODINGS = ("index", "bitmap")

_LIMITS = {
    "rows": 256, "groups": 128, "columns": 4096, "softmax_lanes": 64, "softmax_block": 4096,
    "weight_words": 65536, "parameter_words": 65536, "norm_columns": 4096, "burst": 256, "outstanding": 64,
    "array_multipliers": 65536, "window_words": 65536,
    "loads_ahead": 1,
}  # fmt: skip
_POWERS_OF_TWO = ("columns", "weight_words", "parameter_words", "norm_columns", "burst", "window_words")


_SEEN = (
    "rows", "groups", "window", "nm", "encodings", "lanes", "columns", "weight_words", "parameter_words", "burst",
    "features", "window_words",
)  # fmt: skip
"""What a program, or the layout of its image, depends on."""


_ADDED = ("features", "window_words", "loads_ahead")
"""Parameters that came later: what leaves them at nothing is the hardware that it was without them."""


def _in_order(encodings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(encodings), key=lambda e: (*[e != known for known in ENCODINGS], e)))


def _digest(parameters: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Config:
    """Everything that shapes the hardware.

    Parameters
    ----------
    rows : int
        Rows of the array: tokens computed at the same time.
    groups : int
        Groups of the array: windows (slices of the reduction dimension) computed at the same time.
    window : int
        Activations one processing element holds per bank: 4, 8, 16 or 32. Every M divides it.
    nm : tuple of str
        ``("any",)`` or the patterns to support, such as ``("2:4", "1:4", "dense")``. Dense is
        always there (attention needs it). Fewer patterns give smaller decoders. Put in order, by M
        and N and dense last, each once; encodings and features likewise.
    encodings : tuple of str
        The encodings of sparse weights the decoders understand: ``index``, ``bitmap`` or both.
    lanes : int
        Rows loaded per cycle into the windows; divides `rows`. 0 chooses the largest divisor of
        `rows` up to 8. The accelerator's memory bus has so many bytes.
    drain_lanes : int
        Results requantized per cycle, and elements per cycle of the vector unit behind; divides
        `rows`. 0 chooses `lanes`.
    columns : int
        Depth of each accumulator bank: output columns of one tile, and results waiting to drain.
    multiplier : str
        ``auto`` (inferred by the synthesis tool), ``dsp`` (ECP5 MULT18X18D with its registers), ``nexus`` and
        ``gowin`` (MULT9X9 and MULT18X18 of those families), ``lut`` (adders only); or one multiplier for two rows of
        the array: ``pair`` (inferred), ``dsp-pair`` (MULT18X18D) or ``mac16`` (iCE40 SB_MAC16; all else in adders).
    array_multipliers : int
        Hard multipliers the array may take; what is left is made of adders. 0 is no limit.
    window_memory : str
        Memory of the windows: ``block`` or ``distributed`` (LUT RAM). Block RAM saves 30 logic cells
        per multiply-accumulate on ECP5; distributed is for parts short of block RAM.
    softmax_lanes : int
        Elements per cycle of the softmax.
    softmax_block : int
        Elements of a row that share one exponent; a multiple of `softmax_lanes`. 0 means `softmax_lanes`.
    weight_words : int
        Accelerator: words of `groups` weight values held on chip, for use by one row tile after the
        other; a power of two.
    parameter_words : int
        Accelerator: columns whose requantization is held on chip; a power of two.
    norm_columns : int
        Accelerator: columns of a row tile that LayerNorm keeps on chip between its two passes; wider ones
        are read twice. A power of two.
    burst : int
        Accelerator: beats of the longest bus burst; a power of two.
    outstanding : int
        Accelerator: read bursts that may be under way at a time at least; docs/axi.md says how many at most.
    features : tuple of str
        Accelerator: what decoders need beyond encoders (`spec.features.FEATURES`); ``decoder`` stands for all of it.
    window_words : int
        Accelerator: bus words of windows that are kept on chip, for products that take them from there instead of
        reading them again; a power of two, or 0 for no such memory.
    loads_ahead : int
        Accelerator: LOADs that memory is asked for while the one before them still comes, 0 or 1: without, memory's
        latency lies between any two.

    Raises
    ------
    ConfigError
        With one sentence for *each* parameter that is not valid.
    """

    rows: int = 16
    groups: int = 8
    window: int = 16
    nm: tuple[str, ...] = ("any",)
    encodings: tuple[str, ...] = ENCODINGS
    lanes: int = 0
    columns: int = 512
    multiplier: str = "auto"
    window_memory: str = "block"
    softmax_lanes: int = 8
    softmax_block: int = 0
    drain_lanes: int = 0
    weight_words: int = 8192
    parameter_words: int = 2048
    norm_columns: int = 512
    burst: int = 16
    outstanding: int = 8
    array_multipliers: int = 0
    features: tuple[str, ...] = ()
    window_words: int = 0
    loads_ahead: int = 0

    def __post_init__(self) -> None:
        problems: list[str] = []
        self._plain()
        sizes_ok = self._check_sizes(problems)
        self._check_patterns(problems)
        for name, value, known in (
            ("multiplier", self.multiplier, MULTIPLIERS),
            ("window_memory", self.window_memory, WINDOW_MEMORIES),
            *(("encoding", e, ENCODINGS) for e in self.encodings),
            *(("feature", f, (*FEATURES, ALL_OF_DECODERS)) for f in self.features),
        ):
            if value not in known:
                near = get_close_matches(str(value), known, n=1, cutoff=0) or [known[0]]
                problems.append(f"{name} {value!r} is unknown; it is {listed(known)}, the nearest is {near[0]}.")
        if not self.encodings:
            problems.append("encodings is empty; name index, bitmap or both.")
        if sizes_ok:
            divisors = [d for d in range(1, self.rows + 1) if self.rows % d == 0]
            if self.lanes == 0:
                object.__setattr__(self, "lanes", max(d for d in divisors if d <= 8))
            if self.drain_lanes == 0:
                object.__setattr__(self, "drain_lanes", self.lanes)
            for name in ("lanes", "drain_lanes"):
                value = getattr(self, name)
                if self.rows % value and (name == "lanes" or value != self.lanes):
                    nearest = min(divisors, key=lambda d: abs(d - value))
                    problems.append(f"{name} = {value} does not divide rows = {self.rows}; the nearest is {nearest}.")
            if self.softmax_block == 0:
                object.__setattr__(self, "softmax_block", self.softmax_lanes)
            elif self.softmax_block % self.softmax_lanes:
                nearest = max(1, round(self.softmax_block / self.softmax_lanes)) * self.softmax_lanes
                problems.append(
                    f"softmax_block = {self.softmax_block} is not a multiple of softmax_lanes = "
                    f"{self.softmax_lanes}; the nearest is {nearest}."
                )
        if problems:
            raise ConfigError(problems)

    def _plain(self) -> None:
        """Whole numbers and words as Python and JSON have them, whatever kind of each was given."""
        problems = []
        for name in (*_LIMITS, "window", "lanes", "drain_lanes"):
            with suppress(InputError):  # what is none is named with its range
                object.__setattr__(self, name, whole(getattr(self, name), name))
        for name in ("nm", "encodings", "features"):
            try:
                words = several(getattr(self, name), name, "words")
                if wrong := [w for w in words if not isinstance(w, str)]:
                    problems.append(f"{name} holds {wrong[0]!r}; it is a list of words.")
                object.__setattr__(self, name, tuple(words))
            except InputError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError(problems)
        # The same hardware has one hash, in whatever order its words were given, and however often.
        object.__setattr__(self, "features", in_order(self.features))
        object.__setattr__(self, "encodings", _in_order(self.encodings))
        object.__setattr__(self, "nm", patterns_in_order(self.nm))

    def _check_sizes(self, problems: list[str]) -> bool:
        """Whether all are in range, so that it can be looked at what divides what."""
        before = len(problems)
        for name, high in _LIMITS.items():
            value = getattr(self, name)
            low = 0 if name in ("softmax_block", "array_multipliers", "window_words", "loads_ahead") else 1
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                number = value if isinstance(value, int | float) and value == value else low
                nearest = round(min(max(number, low), high))
                problems.append(
                    f"{name} = {value} is out of range; it is a whole number from {low} to {high}, "
                    f"the nearest is {nearest}."
                )
        in_range = len(problems) == before
        for name in _POWERS_OF_TWO if in_range else ():
            value = getattr(self, name)
            if value & (value - 1):
                lower = 1 << (value.bit_length() - 1)
                nearest = min((lower, lower * 2), key=lambda c: abs(c - value))
                problems.append(f"{name} = {value} is not a power of two; the nearest is {nearest}.")
        if self.columns in (1, 2) and len(problems) == before:
            problems.append(f"columns = {self.columns} is too few to pipeline; the nearest is 4.")
        for name in ("lanes", "drain_lanes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                problems.append(f"{name} = {value} is out of range; it divides rows, or is 0 to choose.")
                in_range = False
        if not isinstance(self.window, int) or self.window not in SUPPORTED_WINDOWS:
            number = self.window if isinstance(self.window, int) else 16
            nearest = min(SUPPORTED_WINDOWS, key=lambda c: (abs(c - number), c))
            problems.append(
                f"window = {self.window} is not supported; it is {listed(SUPPORTED_WINDOWS)}, the nearest is {nearest}."
            )
        return in_range

    def _check_patterns(self, problems: list[str]) -> None:
        if not self.nm:
            problems.append("nm is empty; write any, or a list such as 2:4,1:4,dense.")
        if "any" in self.nm:
            if len(self.nm) > 1:
                problems.append(
                    f"nm = {','.join(self.nm)} mixes any with patterns; write any alone, or the list alone."
                )
            return
        for word in self.nm:
            try:
                pattern = parse_nm(word)
            except ConfigError as error:
                problems.extend(error.problems)
                continue
            if self.window in SUPPORTED_WINDOWS and self.window % pattern.m:
                problems.append(
                    f"N:M pattern {word} needs a window that M = {pattern.m} divides, and window is {self.window}; "
                    f"choose window {pattern.m} or M at most {self.window}."
                )

    # -- derived -----------------------------------------------------------------------------------

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """All patterns the hardware runs, dense first."""
        if "any" in self.nm:
            sparse = [Pattern(n, m) for m in SUPPORTED_M if self.window % m == 0 for n in range(1, m + 1)]
        else:
            sparse = sorted({p for p in map(parse_nm, self.nm) if p.m > 1}, key=lambda p: (p.m, p.n))
        return (DENSE, *sparse)

    @property
    def index_widths(self) -> tuple[int, ...]:
        """Widths in bits of an index, log2 M, that the decoders unpack."""
        return tuple(sorted({p.m.bit_length() - 1 for p in self.patterns if p.m > 1}))

    @property
    def sparse(self) -> bool:
        """True when any pattern but dense is supported."""
        return len(self.patterns) > 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates per cycle."""
        return self.rows * self.groups

    @property
    def vector_multiplier(self) -> str:
        """Kind of the multipliers outside the array."""
        return _VECTOR_MULTIPLIERS.get(self.multiplier, self.multiplier)

    @property
    def hard_multipliers(self) -> int:
        """Multipliers of the array that are not made of adders; the others are."""
        if self.multiplier == "lut":
            return 0
        whole = (self.rows + 1) // 2 * self.groups if self.multiplier in ("pair", "dsp-pair", "mac16") else self.macs
        return min(whole, self.array_multipliers) if self.array_multipliers else whole

    @property
    def instantiates_primitives(self) -> bool:
        """True when the Verilog instantiates cells of one vendor."""
        return self.multiplier not in ("auto", "lut", "pair")

    @property
    def address_width(self) -> int:
        """Bits of an address within a window."""
        return self.window.bit_length() - 1

    @property
    def block_groups(self) -> int:
        """Groups that a block of 4-bit weights is spread over."""
        return block_groups(self.window, self.groups)

    @property
    def wide_block_groups(self) -> int:
        """Groups that a wide block of 4-bit weights is spread over; 0 where there are too few."""
        return wide_block_groups(self.window, self.groups)

    @property
    def position_words(self) -> int:
        """Words of index metadata held on chip: enough for `weight_words` values of any pattern."""
        return self.weight_words // (4 if self.window >= 16 else 2)

    @property
    def bus_bytes(self) -> int:
        """Bytes of one beat of the accelerator's memory bus."""
        return self.lanes

    @property
    def abilities(self) -> tuple[str, ...]:
        """What fields of instructions may need: the features, and what other parameters bring (`spec.features`)."""
        more = {"windows": self.window_words > 0, "apart": self.groups > self.rows}
        more["wide_blocks"] = "blocks4" in self.features and self.wide_block_groups > 0
        return (*self.features, *(name for name, there in more.items() if there))

    @property
    def value_rows(self) -> int:
        """Tokens whose values lie side by side: as attention's weights, `groups` of them are a beat's."""
        return max(self.rows, self.groups)

    def require_accelerator(self) -> None:
        """Raise ConfigError, one sentence for each reason why no whole accelerator has this shape."""
        problems = accelerator_problems(
            rows=self.rows, groups=self.groups, window=self.window, lanes=self.lanes, drain_lanes=self.drain_lanes,
            burst=self.burst,
        )  # fmt: skip
        if problems:
            raise ConfigError(problems)

    def require(self, pattern: Pattern) -> None:
        """Raise ConfigError unless the hardware runs `pattern`."""
        if pattern not in self.patterns:
            built = ", ".join(map(str, self.patterns))
            raise ConfigError([f"N:M pattern {pattern} is not built into this hardware; it runs {built}."])

    def as_dict(self) -> dict[str, Any]:
        """All parameters as plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of all parameters, those of `_ADDED` only if they are set."""
        return _digest({name: value for name, value in self.as_dict().items() if name not in _ADDED or value})

    @property
    def program_hash(self) -> str:
        """The same of the parameters that a program can see, those left at their defaults aside.

        Configurations with the same one run the same programs, to the same bytes; a parameter that is added later
        and left at its default does not change it.
        """
        found = self.as_dict()
        return _digest({name: found[name] for name in _SEEN if getattr(self, name) != _DEFAULTS[name]})


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Config)}
