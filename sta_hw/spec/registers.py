"""The accelerator's registers, described once: the RTL decoder, the C header and the docs page come from here."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config
from .isa import VERSION, Error
from .records import Field, Record

__all__ = [
    "COMPLETIONS",
    "COUNTERS",
    "COUNTER_BASE",
    "ERROR_TEXTS",
    "REGISTERS",
    "SATURATIONS",
    "Bits",
    "Counter",
    "Register",
    "capabilities",
    "markdown",
    "register",
    "there",
]


@dataclass(frozen=True)
class Bits:
    """Bits of a register."""

    name: str
    low: int
    width: int
    text: str


@dataclass(frozen=True)
class Register:
    """One 32-bit register. Access: ``ro`` read only, ``rw`` read and write, ``wo`` write only.

    With `feature`, hardware without it has no such register.
    """

    name: str
    offset: int
    access: str
    text: str
    fields: tuple[Bits, ...] = ()
    feature: str = ""


@dataclass(frozen=True)
class Counter:
    """A 32-bit counter of cycles or events since the start of the program; it wraps."""

    name: str
    text: str


COUNTERS = (
    Counter("cycles", "cycles from start to the end of the program"),
    Counter("engine_busy", "cycles in which a beat of weights entered the array"),
    Counter("engine_wait_memory", "cycles in which weights waited for windows that were being read from memory"),
    Counter("engine_wait_softmax", "cycles in which weights waited for windows of probabilities"),
    Counter("engine_wait_norm", "cycles in which weights waited for windows whose load waited for a NORM"),
    Counter("engine_wait_product", "cycles in which weights waited for windows whose load waited for a product"),
    Counter("engine_wait_results", "cycles in which weights waited for room in the result ring"),
    Counter("engine_wait_rescale", "cycles in which stored sums were rescaled"),
    Counter("engine_wait_loads", "cycles in which the next product waited for a LOAD"),
    Counter("engine_idle", "the other cycles in which no beat entered the array"),
    Counter("load_busy", "cycles in which a LOAD was under way"),
    Counter("norm_busy", "cycles in which a NORM was under way"),
    Counter("softmax_busy", "cycles in which the softmax held a block"),
    Counter("read_beats", "bus beats read"),
    Counter("write_beats", "bus beats written"),
    Counter(
        "saturated_scores",
        "groups of drain_lanes rows' scores of one of the text's keys, with a score of -32,767 or 32,767",
    ),
    Counter(
        "saturated_sums",
        "groups of drain_lanes rows' 16-bit results of a column, with one of -32,767 or 32,767: residual sums, pooling",
    ),
    Counter(
        "saturated_norms",
        "groups of lanes / 2 rows' 16-bit LayerNorm results of a column, with one of -32,767 or 32,767",
    ),
    Counter(
        "saturated_results",
        "groups of drain_lanes rows' 8-bit results of a column, with one of -127 or 127",
    ),
)

COMPLETIONS = Record(
    "completions",
    (
        Field("loads", 1, text="a LOAD"), Field("matrix", 1, text="a product through the array"),
        Field("scores", 1, text="a product whose results are in the softmax"),
        Field("stores", 1, text="a product whose results are in memory"), Field("norms", 1, text="a NORM"),
    ),
)  # fmt: skip
"""What was finished in a cycle, as the accelerator's `activity` has it behind the counters' events."""

SATURATIONS = tuple(c.name for c in COUNTERS if c.name.startswith("saturated"))
"""The counters of values at an end of their range, which the reference counts too."""

COUNTER_BASE = 0x80
"""Offset of the first counter; the others follow it."""

ERROR_TEXTS = {
    Error.NONE: "none",
    Error.HEADER: "the program's header is not one of this version",
    Error.HARDWARE: "the program was made for another configuration",
    Error.OPCODE: "illegal instruction: unknown, reserved, or a loop that is none",
    Error.ADDRESS: "an address is outside the image or not aligned to the bus; the image is not whole bursts",
    Error.READ: "the bus answered a read with an error",
    Error.WRITE: "the bus answered a write with an error",
    Error.ENGINE: "weights do not match their header, or the product is out of range",
    Error.TIMEOUT: "nothing moved for 2^20 cycles",
}
"""Every error's meaning, of the register status, in words."""

REGISTERS = (
    Register("id", 0x00, "ro", "the characters STAH, 0x48415453"),
    Register("version", 0x04, "ro", "version of instruction set and registers"),
    Register("hash_low", 0x08, "ro", "hash of what programs see of the hardware, low half; a program names its hash"),
    Register("hash_high", 0x0C, "ro", "the same, high half"),
    Register(
        "shape", 0x10, "ro", "capability word: the array",
        (Bits("rows", 0, 9, "rows"), Bits("groups", 9, 8, "groups"), Bits("window", 17, 6, "window"),
         Bits("lanes", 23, 7, "bytes of the bus")),
    ),
    Register(
        "memories", 0x14, "ro", "capability word: on-chip memories, log2 of their words",
        (Bits("weight_words_log2", 0, 5, "weight values"), Bits("position_words_log2", 5, 5, "positions"),
         Bits("parameter_words_log2", 10, 5, "parameters"), Bits("columns_log2", 15, 5, "accumulator columns"),
         Bits("index", 20, 1, "index encoding"), Bits("bitmap", 21, 1, "bitmap encoding")),
    ),
    Register(
        "control", 0x18, "rw", "start and reset act when 1 is written, and read as 0",
        (Bits("start", 0, 1, "reset the core and run the program, unless one is under way"),
         Bits("reset", 1, 1, "stop, wait for the bus, reset the core; goes before a start in the same write"),
         Bits("interrupt_enable", 2, 1, "drive the interrupt line")),
    ),
    Register(
        "status", 0x1C, "ro", "what the core does",
        (Bits("busy", 0, 1, "a program runs, or a reset is under way"), Bits("done", 1, 1, "the program ended"),
         Bits("failed", 2, 1, "the program was stopped"),
         Bits("refused", 3, 1, "a start did nothing: a program was under way, or a reset was written with it"),
         Bits("error", 8, 8, "why it was stopped (Error)"),
         Bits("interrupt", 16, 1, "done or failed since the last clear")),
    ),
    Register("error_instruction", 0x20, "ro", "number of the instruction that failed, modulo 2^16"),
    Register("interrupt_clear", 0x24, "wo", "any write clears the interrupt"),
    Register("image_address", 0x28, "rw", "bus address of the memory image, a multiple of the longest burst"),
    Register("image_size", 0x2C, "rw", "bytes of the image, whole longest bursts; nothing outside is read or written"),
    Register("program_address", 0x30, "rw", "offset of the program in the image, a multiple of the bus's bytes"),
    Register("stalled", 0x34, "ro", "streams that offer a beat nobody takes, for finding out why a program waits",
             (Bits("windows", 0, 1, "window loads"), Bits("weights", 1, 1, "weight values"),
              Bits("results", 2, 1, "results"), Bits("loads", 3, 1, "LOAD"), Bits("norms", 4, 1, "NORM"),
              Bits("scores", 5, 1, "scores"), Bits("instructions", 6, 1, "instructions"))),
    Register("length", 0x38, "rw", "the text's length: limits keys where SCORES' mask says so; r15 begins with it",
             (Bits("length", 0, 16, "tokens"),)),
    Register("position", 0x3C, "rw", "hardware with feature position alone: the first token's position, with which r13 "
             "begins; r12 with its row tile, position / rows rounded down",
             (Bits("position", 0, 16, "tokens before it"),), "position"),
    *(Register(f"counter_{c.name}", COUNTER_BASE + 4 * i, "ro", c.text) for i, c in enumerate(COUNTERS)),
)  # fmt: skip


def register(name: str) -> Register:
    """The register called `name`."""
    return next(r for r in REGISTERS if r.name == name)


def there(config: Config) -> list[Register]:
    """The registers that a configuration has."""
    return [r for r in REGISTERS if r.feature in ("", *config.features)]


def capabilities(config: Config) -> dict[str, int]:
    """Values of the registers that say what hardware this is."""

    def fields(name: str, values: dict[str, int]) -> int:
        return sum(values[f.name] << f.low for f in register(name).fields)

    def log2(value: int) -> int:
        return value.bit_length() - 1

    digest = int(config.program_hash, 16)
    return {
        "id": 0x48415453,
        "version": VERSION,
        "hash_low": digest & 0xFFFFFFFF,
        "hash_high": digest >> 32,
        "shape": fields(
            "shape",
            {"rows": config.rows, "groups": config.groups, "window": config.window, "lanes": config.bus_bytes},
        ),
        "memories": fields(
            "memories",
            {
                "weight_words_log2": log2(config.weight_words),
                "position_words_log2": log2(config.position_words),
                "parameter_words_log2": log2(config.parameter_words),
                "columns_log2": log2(config.columns),
                "index": int("index" in config.encodings),
                "bitmap": int("bitmap" in config.encodings),
            },
        ),
    }


_BEHAVIOUR = """\
## What happens when

- **A write acts** in the cycle before its answer, in every state alike, and byte by byte: bytes that are not strobed
  stay, and `control` acts if its lowest byte is written. Writing a register that is read only or does not exist
  changes nothing and is answered with an error (SLVERR), as is reading one that is write only.
- **Start** takes the image's address and size, the program's address, length and position as they are; from then on
  they may be written for the next program, and the one that runs does not see it. Status, error and interrupt of the
  last program are cleared and the counters begin at 0. It then waits for the bus, resets the core and runs. While one
  is under way, until `done` or `failed`, a start does nothing but set `refused`, which the next start or reset clears.
  A start while a reset is under way is taken; the program runs after it.
- **Reset** acts in every state and every cycle. It ends what is under way without `done`, `failed` or interrupt, also
  a program that would have ended in that very cycle or that has not begun; it clears status, error, `refused` and the
  interrupt, and leaves counters and the other registers as they are. `busy` stays 1 until the core is clean.
- **The bus** is never left with a burst half done: start and reset wait for every one that was begun. A memory that
  does not answer therefore keeps `busy` at 1, and no error, watchdog or reset can end that; only the hardware's reset
  can.
- **The interrupt** bit is set when a program ends, in the cycle in which `done` or `failed` is, and so once for each
  program that ends. A write of `interrupt_clear` in that cycle does not clear it. The line is high while the bit and
  `interrupt_enable` both are 1: enabled throughout, it rises once for each program that ends, and never for one that
  was reset. A start clears what is left of the program before in the cycle in which it enables the line. Enabled
  while the bit is 1, the line rises at once.
- **Addresses.** An image address or size that is not a multiple of the longest burst (`burst` times the bytes of the
  bus), or an image that ends beyond 2^32, ends the program as ADDRESS of instruction 0 before anything is read. So
  does, with the number of its instruction, every address of the program's that is outside the image or not a multiple
  of the bus's bytes; the program's own address counts as instruction 0.
- **Counters** count while the program runs, and stay when it has ended or was reset. A counter read while it counts
  misses the last three cycles. It begins at 0 again behind 2^32 - 1: that of cycles after 43 s at 100 MHz.

`python -m sim.control --cycles 10000000` compares all this, cycle by cycle, with a model of it
(`sim/control_model.py`); tests do so for a million cycles.
"""


def markdown() -> str:
    """The docs page."""
    lines = [
        "# Registers",
        "",
        "AXI4-Lite, 32 bits each. Generated from `sta_hw/spec/registers.py` by `python -m sta_hw.spec.registers`, as",
        "is the C header that `sta-hw generate --top accelerator` writes.",
        "",
        "| offset | name | access | bits | meaning |",
        "|---|---|---|---|---|",
    ]
    for r in REGISTERS:
        lines.append(f"| 0x{r.offset:02X} | {r.name} | {r.access} | | {r.text} |")
        for f in r.fields:
            bits = str(f.low) if f.width == 1 else f"{f.low + f.width - 1}:{f.low}"
            lines.append(f"| | | | {bits} | {f.name}: {f.text} |")
    lines += ["", *_BEHAVIOUR.splitlines(), "", "## Errors", "", "| code | name | meaning |", "|---|---|---|"]
    lines += [f"| {int(e)} | {e.name} | {ERROR_TEXTS[e]} |" for e in Error]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
