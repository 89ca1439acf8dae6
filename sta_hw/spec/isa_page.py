"""docs/isa.md: what a program is, and every field of every instruction, from the tables that the assembler uses."""

from __future__ import annotations

from .expansion import (
    LENGTH_REGISTER,
    MOST_LOOPS,
    POSITION_REGISTER,
    TILE_REGISTER,
    TILES_REGISTER,
    WINDOW_LINES,
)
from .features import ABILITIES
from .isa import (
    FORMATS,
    HEADER_BYTES,
    LINE_BYTES,
    MOST_LINES,
    NO_WAIT,
    VERSION,
    Digit,
    Mask,
    NormKind,
    Opcode,
    Positions,
    Result,
    Target,
    ValueFormat,
    formats,
)

__all__ = ["EXAMPLE", "markdown"]

_SAME = (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)

_OPCODES = {
    Opcode.HALT: "end of the program: it ends when every unit is idle; every program has one, outside of loops",
    Opcode.LOAD: "memory to an on-chip memory",
    Opcode.PRODUCT: "matrix product: windows from memory, weights on chip, results to memory",
    Opcode.SCORES: "Q x K^T of one head, one row tile, one block of keys, into the softmax",
    Opcode.CONTEXT: "P x V of the next block in the softmax, divided by the rows' sums",
    Opcode.NORM: "LayerNorm or RMSNorm of one row tile, memory to memory",
    Opcode.SET: "a register becomes a constant plus a register",
    Opcode.LOOP: "what follows, up to its NEXT, runs `count` times",
    Opcode.NEXT: "end of the innermost loop",
}
_RESULTS = {
    Result.STORE8: "8 bits, column after column",
    Result.STORE16: "16 bits, column after column",
    Result.ACTIVATE: "through the table and the second multiplier, 8 bits",
    Result.RESIDUAL: "added to the residual stream, 16 bits",
    Result.TRANSPOSE: "8 bits, in blocks of `groups` columns, row after row, for use as weights",
    Result.BEST: "the 8 largest 16-bit results of each row, with their columns' numbers (feature best)",
}
_TARGETS = {
    Target.VALUES: "weight values, `groups` bytes a word",
    Target.POSITIONS: "positions, `groups x window` bits a word",
    Target.PARAMETERS: "columns' parameters, 16 bytes a word",
    Target.TABLE: "the activation table, 2 bytes a word",
    Target.SHORT_PARAMETERS: "columns' parameters into the words of PARAMETERS, 8 bytes each (feature blocks4)",
}
_ENCODINGS = {
    Positions.DENSE: "none: every weight is there",
    Positions.INDEX: "log2 M bits each",
    Positions.BITMAP: "a bit for each weight",
}
_VALUE_FORMATS = {
    ValueFormat.INT8: "8 bits each",
    ValueFormat.BLOCKS4: "4 bits in blocks (feature blocks4)",
    ValueFormat.WIDE_BLOCKS4: f"4 bits in wide blocks ({ABILITIES['wide_blocks']})",
}
_MASKS = {
    Mask.KEYS: "below `keys`",
    Mask.LENGTH: "below register LENGTH",
    Mask.CAUSAL: "for row r below `keys` + r (feature causal)",
}
_KINDS = {NormKind.LAYER: "LayerNorm", NormKind.RMS: "RMSNorm (feature rms)"}
_DIGITS = {
    Digit.NONE: "windows of 8 bits",
    Digit.HIGH: "the high one of windows of 15 bits (feature digits)",
    Digit.LOW: "the low one (feature digits)",
}

_TITLE = """\
# Programs

A program is a list of instructions in memory, which the accelerator runs by itself. This page has every bit of it:
the instructions, an example, the rules that hold for all of them, what each does, and the fields.

It is generated from `sta_hw/spec/isa/` by `python -m sta_hw.spec.isa_page`. `sta_hw.spec.isa` packs and reads
programs, strictly; `sta_hw.spec.assembly` has them as text (`sta-hw compile --listing`), `sta_hw.spec.expansion` says
what their loops stand for.

## The instructions
"""

EXAMPLE = """\
load address=0x100 rows=1 beats=64 target=values
load address=0x200 rows=1 beats=32 target=parameters
product window_address=0x280 window_beats=32 result_address=0x300 result=store8 wait_loads=1 \
columns=8 passes=1 n=1 depth=16 parameters_step=1 count0=16 stride0=1 count1=8 stride1=16 count2=1 count3=1
halt
"""
"""A product on preset ``ci``: four rows of 32 activations by eight columns of dense weights."""

_RULES = f"""
## An example

On preset `ci` (4 rows, 2 groups, windows of 16, a bus of 4 bytes) this multiplies 4 tokens of 32 activations by 8
columns of dense weights:

```
{EXAMPLE.rstrip()}
```

| in the image | what | bytes |
|---|---|---|
| 0x000 | the program: header, 15 words, zeros to a whole line | 192 |
| 0x100 | weights: for each column 16 beats of 2 groups, a byte each | 256 |
| 0x200 | parameters of 8 columns, 16 bytes each | 128 |
| 0x280 | activations: byte 4 k + r is activation k of token r | 128 |
| 0x300 | results: byte 4 c + r is column c of token r | 32 |

The first LOAD takes 64 bus words of weights into 128 words of 2 bytes, the second the parameters. `wait_loads=1` has
the product wait for both. It counts through 16 beats of each of 8 columns. `tests/reference/test_reference_machine.py`
runs it and compares it with a matrix product.

## The header

A program is a header of {HEADER_BYTES} bytes and then words of 64 bits, little-endian, zeros behind the last one to a
whole line of {LINE_BYTES} bytes.

| bits | header |
|---|---|
| 0 to 31 | magic "STAH" |
| 32 to 63 | version, {VERSION} |
| 64 to 95 | lines of {LINE_BYTES} bytes in all, at most {MOST_LINES:,} |
| 96 to 127 | unused |
| 128 to 191 | `program_hash`: a hash of what programs see of the hardware (`Config.program_hash`) |
| 192 to 511 | unused |

Hardware of another `program_hash` refuses the program (error HARDWARE); multipliers, softmax lanes and whatever else
leaves the bytes alone do not change it.

## Words and registers

An instruction has one to eight words. In each, bits 0 to 31 are its lower part, bits 32 to 35 name a register, and
the register's value is added to the lower part, modulo 2^32, before anything else is looked at: addresses of memory,
and also bases in the on-chip memories, which lie in the upper half of their lower part (a register steps them in
units of 65,536, and they wrap). Fields left out are zero.

There are 15 registers of 32 bits; number 0 adds nothing. They begin so:

| register | begins with |
|---|---|
| r{LENGTH_REGISTER} | the text's length (register LENGTH) |
| r{TILES_REGISTER} | its row tiles, ceil(length / rows) |
| r{POSITION_REGISTER}, with feature position | register POSITION |
| r{TILE_REGISTER}, with feature position | its row tile, position / rows rounded down |
| all others | 0 |

SET, LOOP and NEXT never reach a unit. What a program means is the list of the other instructions in the order in
which they come, registers added; instruction numbers (ERROR_INSTRUCTION) count them from 0, modulo 2^16.

## What stops a program

- **HEADER**, at number 0: a header that is none of this version, also one of 0 lines.
- **ADDRESS**, at number 0: a program that does not lie all in the image, where a line is read that is not there, which
  is {WINDOW_LINES} lines ahead (the reference stops at once; hardware that comes to HALT before it reads that line ends
  well).
- **TIMEOUT**, at the number of the instruction that comes next where programs are read: nothing moves for 2^20 cycles,
  neither a beat on the bus nor one through the array. So end units that wait for what never comes, and so many cycles
  of SETs, LOOPs and NEXTs without an instruction between them (LOOP 8 and LOOP 65,535 around nothing take 1.6 million).
  What units still do, and lines that are still read, put it off.

**OPCODE** comes at the number of the instruction that would have come next:

- an unknown opcode, code or bit that no field has in a word's upper 28 bits, a reserved field that is not 0;
- `columns` of SCORES, or with result TRANSPOSE, that are no multiple of `groups`, and more than groups x window of
  SCORES;
- a loop of no turns, more than {MOST_LOOPS} loops within one another, NEXT without LOOP, HALT in a loop, SET of
  register 0, the end without HALT;
- the body of an outermost loop (from behind its LOOP to its NEXT) that touches more than {WINDOW_LINES} lines of
  {LINE_BYTES} bytes. That is the size of the ring that words are read into ahead of their use: what a loop's body has
  in it stays there, so loops take no bus. 504 words, 63 products, fit wherever they begin.

Instructions are looked at ahead of those that units still run, so an illegal one may stop a program before an earlier
one has met its own error (ADDRESS, READ, WRITE, ENGINE), and hardware then names the later one; the reference always
names the earlier. Either is an error of the program.

Issuing an instruction takes a cycle for each of its words and 2 more, SET, LOOP and a NEXT that goes on 1 cycle, a NEXT
that goes back 3.

## Waiting

Units run side by side, and an instruction says for what it waits, of those *issued before it*:

| field | waits for | looked at by |
|---|---|---|
| `wait_loads` | LOADs | products' weights |
| `wait_matrix` | products that are through the array | LOAD |
| `wait_products` | products whose results are in memory or in the softmax | LOAD, NORM, products' windows |
| `wait_norms` | NORMs | LOAD, NORM, products' windows |

0: for none. n, 1 to {NO_WAIT}: until all but the last n - 1 are finished; 1 is all. There are never more than
{NO_WAIT - 1} of a class under way, so what lies further back needs no wait. `wait_products` does not count products
that leave their sums unfinished. Fields that are not looked at are for an order that the units keep anyway: LOADs run
in order among themselves, as do products and NORMs. An instruction never waits for a later one. No instruction is
issued while one 64 instructions before it still waits in front of its unit.

## What the instructions do

Addresses are byte offsets in the image and multiples of the bus word. Divisions round down.

### To the chip: LOAD

LOAD copies `rows` runs of `beats` bus words, `stride` bytes apart, to consecutive words of `target` from word
`destination` on: the runs' bytes one behind the other. What is left at its end and no whole word is forgotten, and a
LOAD of no runs or no beats loads nothing. The memories are rings: addresses wrap. All have a power of two of words:
register `memories` says how many, and the table has 256. Words that a program loads nothing into hold what earlier
programs left.

### Products: PRODUCT, SCORES, CONTEXT

- **What it reads.** PRODUCT reads `window_beats` bus words from `window_address`, weights from `values_base` in the
  order of four nested counters (0 is the innermost; strides in words), positions and parameters from their bases, and
  gives `columns` results per row to `result_address` as `result` says. As many values and position words as
  [the format](format.md) asks for, each count at least 1: anything else, positions that are not in order and a command
  out of range stop the program (error ENGINE). Dense weights have no positions; their `positions_count` is not looked
  at.
- **Weights of 4 bits** (`value_format` 1 and 2, feature blocks4): the words at `values_base` are weights of 4 bits in
  blocks, in wide ones if it is 2, each header followed by `run` values of a group ([format](format.md)); `run` is
  N x `depth` / M, at least 2 (else OPCODE), and not defined where it does not divide the product's values. As many
  words as the format asks for, or ENGINE.
- **Windows** are bytes, signed in memory (PRODUCT, SCORES) and unsigned from the softmax (CONTEXT): weight k of a
  column meets, in row r, byte k x `rows` + r. There are `passes` x `groups` x `depth` x `rows` of them, neither more
  nor fewer.
- **A column's parameters** in memory: bias 32, multiplier 16, shift 8, unused 8, second multiplier 16, unused 48 bits.
  Column c has those at `parameters_base` + c x `parameters_step`; of the shift 3 bits count. The second multiplier is
  that of ACTIVATE and RESIDUAL. SCORES has parameters, too, CONTEXT none.
- **The same as target SHORT_PARAMETERS takes it** (feature blocks4): bias 24, multiplier 16, shift 8, second multiplier
  16 bits, of the shift again 3. The bias, signed, becomes one of 32 bits; `destination` counts the words of PARAMETERS,
  and a program may load some columns from either.
- **Sums that go on.** `unfinished` keeps a product's sums, and the next product that `continues`, of as many columns,
  takes them and adds to them. Products between the two, SCORES and CONTEXT too, have one pass: those of several use the
  same memory. What is kept, and the sums of several passes, have at most as many columns as register `memories` says.
- **Rows.** Of results that go to memory, and of NORM's, the first `rows_before` and the last `rows_after` rows of the
  tile are not written; their bytes stay. Byte A of memory is one of row A mod rows (8 bits), (A / 2) mod rows (16),
  (A / `groups`) mod rows (transposed), so tiles begin at multiples of a column's bytes.
- **SCORES**: results are the 16-bit scores (`wide`) of a block of `columns` keys, a multiple of `groups`. With D =
  `columns` / `groups`, at most `window`, column c is the block's key i = `groups` x (c mod D) + c / D, which has number
  `key_start` + i; those from 0 on and below `keys`, or with mask LENGTH below register LENGTH, are valid, and the
  others have probability 0. `row_first` and `row_last` mark a row's first and last block, and every row has both; the
  last one's `gain` counts, and `coarse` is the same in all. Rows without any valid key get zeros.
- **CONTEXT**: windows are the next block's probabilities, all of them, column c of its SCORES as position c; each block
  is taken by one CONTEXT, in order, and where there is none it waits for ever (TIMEOUT). `continues` and `unfinished`
  chain the blocks of a row: it continues unless its SCORES had `row_first`, and is unfinished unless that had
  `row_last`; what is kept is scaled to the block's exponent before its own products are added. Results are STORE8, or
  `wide` and STORE16.

Where result r of column c lies, from `result_address` on:

| `result` | bytes |
|---|---|
| STORE8, ACTIVATE | c x `rows` + r |
| STORE16, RESIDUAL | two from 2 x (c x `rows` + r) on, the lower one first; the residual stream lies likewise |
| TRANSPOSE | ((c / `groups`) x `rows` + r) x `groups` + c mod `groups`; `columns` is a multiple of `groups` |

`wide` goes with STORE16 and RESIDUAL; without it what they take has 8 bits, and with it the others take the lower 8 of
16.

### What some hardware has

- **`place`** (feature position): the rows that are stored count from the position: the first POSITION + `rows_before`
  rows, modulo `rows`, are not, and at the end `rows_after` - POSITION - LENGTH, modulo `rows`. With both fields 0 those
  from POSITION mod rows on are stored: LENGTH of them where these lie in one tile, and all to the tile's end where
  LENGTH reaches to the end of a later one. Other lengths leave out rows that count.
- **`multiply`** (feature gate; PRODUCT, results ACTIVATE and STORE16): columns come in pairs, and half as many are
  stored. The first one's result, saturated to 8 bits, goes through the table and its second multiplier; what comes out
  multiplies the second one's result ([numerics.md](numerics.md)). The second one's second multiplier is not used.
- **`rotate`** (feature rotary; PRODUCT, results STORE8 and TRANSPOSE): columns come in pairs, which each row turns by
  an angle of its own; cosines (first column) and sines (second) of the rows are read from `residual_address` as the
  residual stream is, 16 bits each ([numerics.md](numerics.md)).
- **`keep`** (hardware with window_words; PRODUCT and SCORES): the windows stay on chip as they are read. What stays is
  that of the addresses from some first one on to some last one, nothing at the program's start; a product that keeps
  what begins there, or right behind it, adds to it if all then has at most window_words bus words, and else what it
  keeps is all that stays.
- **`kept`**: the windows are those that stay of `window_address` on, as they were when they were kept, and memory is
  not read. Refused (OPCODE): `keep` of more than window_words bus words, `kept` of any that do not stay or from an
  address that is no multiple of the bus word, both at once, either in CONTEXT.
- **`apart`** (hardware with more groups than rows; PRODUCT, result STORE8): result r of column c is byte
  c x `groups` + r from `result_address` on; the bytes between columns stay, and all `columns` x `groups` bytes lie in
  the image. So the values of `groups` tokens, of several row tiles, lie side by side, as CONTEXT's weights do.
- **BEST** (feature best): for each row the 8 largest results, of equal ones the earlier, over all products since the
  last one with `row_first`, that one among them; a column's number is `residual_address` plus its place, modulo 2^18.
  With `row_last` the lists are stored, all rows': row after row its 8 places, the largest first, each with number and
  result in 32 bits (missing: 2^18 - 1 and -32,768). Without it nothing is stored.
- **`digit`** (feature digits; PRODUCT): windows are 16-bit elements, which lie as STORE16 leaves them, and
  `window_beats` counts twice as many bus words. Of an element the lower 15 bits count, signed: x = 128 h + l, l from 0
  to 127. Digit HIGH multiplies the h of all windows, LOW the l.
- **`lift`** (with `continues`): the sums that it continues count 128 times, modulo 2^32. So a product of 15-bit
  activations is one of their high digits, `unfinished`, and behind it one of their low digits that `continues` with
  `lift`, over the same weights on chip.
- **`bits15`** (feature digits; results STORE16, and PRODUCT's ACTIVATE without `multiply`, which then stores 16 bits as
  STORE16 does): results saturate to -16,383..16,383. In NORM its 16-bit results do, from which the 8-bit ones are made.
- **Refused** (OPCODE): `multiply` and `rotate` with other results, in SCORES or CONTEXT, or with an odd number of
  columns; BEST in CONTEXT; `apart` with anything but STORE8 in PRODUCT; `digit` and `lift` in SCORES or CONTEXT, `lift`
  without `continues`, `bits15` with other results; whatever needs a feature that the hardware has not.

### Norms: NORM

- `width` is 2 or more; sums and 16-bit results lie as STORE16's, 8-bit results as STORE8's. Its parameters, 8 bytes a
  column, one behind the other: scale 18, shift 16, multiplier 16 bits, unused 14.
- `kind` RMS takes the mean for 0 and does not look at `inverse`; `epsilon`, in units of 2^14 of
  (columns x deviation)^2, is added to the variance of either kind.

### Not defined

The hardware computes with what there is, or waits and stops with TIMEOUT; the reference names it:

- windows of another size than the product's (`passes` x `groups` x `depth` positions of `rows` bytes, or with `digit`
  of twice as many);
- a product that continues without an unfinished one of as many columns before it, or whose sums one of several passes
  has overwritten;
- a CONTEXT whose flags are not its block's;
- SCORES without `row_first` where no row was begun, or of another `coarse` than the row's first block, or with which a
  row's sum of probabilities exceeds 32 bits, as that of more than 65,536 keys can;
- a NORM of less than 2 columns, or of kind LAYER with an `inverse` that is not that of its width;
- `apart` from an address on that is no multiple of `rows`;
- with `value_format` 1 a `run` that does not divide a group's values;
- results, residual stream or NORM's columns of 2^20 bus words or more, with `apart` the bytes between columns among
  them.

## Fields
"""


def _codes(title: str, texts: dict) -> list[str]:
    rows = [f"| {int(code)} {code.name} | {text} |" for code, text in texts.items()]
    return ["", f"| `{title}` | |", "|---|---|", *rows]


def markdown() -> str:
    """The docs page."""
    lines = [*_TITLE.splitlines(), "", "| opcode | bytes | |", "|---|---|---|"]
    lines += [f"| {int(o)} {o.name} | {8 * len(FORMATS[o])} | {text} |" for o, text in _OPCODES.items()]
    lines += _RULES.splitlines()
    for opcode in Opcode:
        if opcode in _SAME[1:]:
            continue
        name = ", ".join(o.name for o in _SAME) if opcode == _SAME[0] else opcode.name
        lines += ["", f"### {name}", "", "| word | bits | field | meaning |", "|---|---|---|---|"]
        for field, (at, described) in formats(opcode).places.items():
            first, last = at % 64, at % 64 + described.width - 1
            bits = str(first) if first == last else f"{first} to {last}"
            text = described.text + (", signed" if described.signed else "")
            text += "; **reserved: 0**" * described.reserved
            feature = described.feature
            text += f" ({ABILITIES.get(feature, f'feature {feature}')})" if feature else ""
            lines.append(f"| {at // 64} | {bits} | {field} | {text} |")
    lines += ["", "### Codes"]
    lines += _codes("result", _RESULTS) + _codes("target", _TARGETS) + _codes("mask", _MASKS) + _codes("kind", _KINDS)
    lines += _codes("digit", _DIGITS)
    lines += _codes("value_format", _VALUE_FORMATS)
    lines += _codes("encoding", _ENCODINGS)
    lines += ["", "`encoding` 3 is refused by the matrix engine (ENGINE), as is one that is not built in."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
