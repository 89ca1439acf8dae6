"""Which modules mutants are made of, and the tests of each."""

from __future__ import annotations

from pathlib import Path

from sta_hw.errors import InputError

__all__ = ["NEXT_LEVEL", "ROOT", "all_modules", "named", "tests_of"]

ROOT = Path(__file__).parents[2]
"""Of the project, with its tests."""
_EXECUTOR = "tests/independent/test_executor.py"
_IN_C = [f"{_EXECUTOR}::test_random_instructions", f"{_EXECUTOR}::test_windows_that_do_not_stay"]
"""The executor in C against the reference, without what breaks the executor."""
_MEASURED = ["tests/cycles/test_measured.py", "tests/cycles/measured.py"]
"""The cycle model's test, and the numbers that it compares with: when they change, what lived is tried again."""
_UNTIMED = [
    f"tests/compiler/test_liveness.py::{name}"
    for name in ("test_a_deadlock_is_refused", "test_more_columns_would_do", "test_loops_are_run_through",
                 "test_random_mistakes", "test_a_ring_too_small_for_two_heads",
                 "test_contexts_that_leave_their_rows_sums")
]  # fmt: skip
"""Of the liveness checker, what takes no minute: without random programs, and without RTL."""
_DECODERS_STEPS = [
    f"tests/compiler/test_decoder_integers.py::{name}"
    for name in ("test_products_are_exact", "test_layer_norm_is_the_references", "test_rms_norm_by_the_rule",
                 "test_the_references_functions", "test_turns_and_gates_by_the_rule",
                 "test_attention_is_the_references_row_by_row", "test_attention_over_a_long_block")
]  # fmt: skip
"""Of decoders in integers, what needs no whole model."""
_ROLLED = [
    f"tests/compiler/test_roll.py::{name}"
    for name in ("test_a_loop_by_hand", "test_random_loops", "test_a_number_that_does_not_fit_is_refused",
                 "test_an_empty_program", "test_a_register_that_goes_on_in_the_next_loop",
                 "test_bodies_that_lines_hold", "test_a_number_that_steps_out_of_its_range_is_refused",
                 "test_what_loops_give_is_compared", "test_thirteen_registers",
                 "test_two_turns_are_a_loop", "test_a_loop_of_many_turns_in_another",
                 "test_what_a_loop_must_save")
]  # fmt: skip
"""Of loops in programs, what takes no second."""
_QUANTIZED = ["tests/compiler/test_passes.py", "tests/compiler/test_check.py"]
NEXT_LEVEL = {
    "sta_hw/rtl/control/decode.py": ["tests/rtl/control/test_fetch.py"],
    "sta_hw/rtl/control/legality.py": ["tests/rtl/control/test_fetch.py"],
    "sta_hw/rtl/control/dispatch.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_waits.py"],
    "sta_hw/rtl/core.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/core_order.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/control/registers.py": ["tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/bus/dma.py": ["tests/rtl/bus/test_dma.py", "tests/rtl/bus/test_dma_errors.py"],
    "sta_hw/rtl/bus/runs.py": ["tests/rtl/bus/test_dma.py"],
    "sta_hw/rtl/engine/loops.py": ["tests/rtl/engine/test_loop_units.py"],
    "sta_hw/rtl/engine/positions.py": ["tests/rtl/engine/test_decoder.py"],
    "sta_hw/rtl/units/expander_headers.py": ["tests/rtl/units/test_expander.py"],
    "sta_hw/rtl/units/expander_levels.py": ["tests/rtl/units/test_expander.py"],
    "sta_hw/rtl/units/attention_arithmetic.py": ["tests/rtl/units/test_attention.py"],
    "sta_hw/rtl/units/attention_maxima.py": ["tests/rtl/units/test_attention.py"],
    "sta_hw/rtl/units/result_arithmetic.py": ["tests/rtl/units/test_results.py"],
    "sta_hw/rtl/units/norm_arithmetic.py": ["tests/rtl/units/test_norm.py"],
    "sta_hw/rtl/units/norm_statistics.py": ["tests/rtl/units/test_norm.py"],
    "sta_hw/formats/block_words.py": ["tests/formats/test_blocks.py"],
    "sta_hw/spec/accelerator_shape.py": ["tests/spec/test_config.py"],
    "sta_hw/spec/presets.py": ["tests/spec/test_config.py"],
    "sta_hw/spec/registers.py": ["tests/spec/test_rdl.py"],
    "sta_hw/spec/patterns.py": ["tests/spec/test_patterns.py", "tests/spec/test_config.py"],
    "sta_hw/spec/isa/encoding.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/isa/instruction.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/isa/opcodes.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/isa/program.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/records.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/assembly.py": ["tests/spec/test_isa.py"],
    "sta_hw/reference/fields.py": ["tests/spec/test_expansion.py"],
    "sta_hw/reference/instructions.py": ["tests/spec/test_expansion.py"],
    "sta_hw/reference/blocks.py": ["tests/formats/test_blocks.py"],
    "sta_hw/reference/machine.py": ["tests/reference/test_machine.py", "tests/reference/test_reference_machine.py"],
    "sta_hw/reference/program.py": _IN_C,
    "sta_hw/cycles/flows.py": ["tests/cycles/test_flows.py", *_MEASURED],
    "sta_hw/cycles/machine.py": _MEASURED,
    "sta_hw/cycles/state.py": _MEASURED,
    "sta_hw/cycles/timing.py": _MEASURED,
    "sta_hw/compiler/kept.py": ["tests/compiler/test_kept.py::test_what_stays"],
    "sta_hw/compiler/liveness.py": [*_UNTIMED, "tests/compiler/test_kept.py::test_programs_that_hardware_would_refuse"],
    "sta_hw/compiler/packing.py": ["tests/compiler/test_packing.py::test_places"],
    "sta_hw/compiler/untimed.py": _UNTIMED,
    "sta_hw/compiler/buffers.py": ["tests/compiler/test_passes.py"],
    "sta_hw/compiler/model.py": ["tests/compiler/test_compiler_model.py", "tests/formats/test_provenance.py"],
    "sta_hw/compiler/emission.py": ["tests/compiler/test_loops.py", *_ROLLED],
    "sta_hw/compiler/loops.py": ["tests/compiler/test_loops.py", *_ROLLED],
    "sta_hw/compiler/roll.py": _ROLLED,
    "sta_hw/compiler/encoder.py": ["tests/compiler/test_passes.py"],
    "sta_hw/compiler/parameters.py": ["tests/compiler/test_compiler_integers.py"],
    "sta_hw/compiler/quantize.py": _QUANTIZED,
    "sta_hw/compiler/stepwise.py": ["tests/compiler/test_check.py"],
    "sta_hw/compiler/stuck.py": _UNTIMED,
    "sta_hw/compiler/lower/chunks.py": ["tests/compiler/test_chunks.py", "tests/compiler/test_limits.py"],
    "sta_hw/compiler/lower/parts.py": [
        "tests/compiler/test_block_parts.py::test_parts",
        "tests/compiler/test_decoder_nm.py::test_what_whole_passes_leave_over",
        "tests/compiler/test_decoder_nm.py::test_values_that_go_with_a_word_of_positions",
        "tests/compiler/test_decoder_nm.py::test_a_rest_that_saves_too_little_stays",
        "tests/compiler/test_block_parts.py::test_some_of_a_columns_weights",
    ],
    "sta_hw/compiler/decoder/four_bits.py": ["tests/compiler/test_decoder_blocks.py"],
    "sta_hw/compiler/decoder/arithmetic.py": _DECODERS_STEPS,
    "sta_hw/compiler/decoder/quantize.py": ["tests/compiler/test_decoder_integers.py"],
    "sta_hw/compiler/decoder/attention.py": ["tests/compiler/test_decoder_program.py"],
    "sta_hw/compiler/decoder/projections.py": ["tests/compiler/test_decoder_program.py"],
    "sta_hw/compiler/decoder/run.py": ["tests/compiler/test_decoder_program.py"],
    "sta_hw/compiler/decoder/fitting.py": ["tests/compiler/test_decoder_blocks.py"],
}
"""Tests of modules that have no test of their own name, or more than that one: files, folders, or tests of a file."""


def tests_of(module: str, root: Path = ROOT) -> list[str]:
    """Those of `NEXT_LEVEL`, or the module's own test; none if it has neither.

    Its own has its name, or its folder's and its name, and lies in a folder of the module's, or in one above it.
    """
    if module in NEXT_LEVEL:
        return NEXT_LEVEL[module]
    folders, name = Path(module).parts[1:-1], Path(module).stem
    for depth in range(len(folders), 0, -1):
        for own in (name, f"{folders[-1]}_{name}"):
            file = Path("tests", *folders[:depth], f"test_{own}.py")
            if (root / file).is_file():
                return [file.as_posix()]
    return []


def all_modules() -> list[str]:
    """Those that have tests, of RTL, formats, spec, reference, cycle model and compiler."""
    folders = ("rtl", "formats", "spec", "reference", "cycles", "compiler")
    found = sorted(p.relative_to(ROOT).as_posix() for f in folders for p in (ROOT / "sta_hw" / f).rglob("*.py"))
    return [m for m in found if not m.endswith("__init__.py") and "/board/" not in m and tests_of(m)]


def named(given: str) -> str:
    """A module's path as it is written here, from the project's folder on.

    Raises
    ------
    InputError
        If there is no such module below `sta_hw`, or it has no tests.
    """
    path = (ROOT / given).resolve()
    if not path.is_relative_to(ROOT / "sta_hw") or path.suffix != ".py" or not path.is_file():
        raise InputError(f"{given} is no module below sta_hw.")
    module = path.relative_to(ROOT).as_posix()
    if not tests_of(module):
        raise InputError(f"{module} has no tests that are known: none of its name, and none in {__name__}.NEXT_LEVEL.")
    return module
