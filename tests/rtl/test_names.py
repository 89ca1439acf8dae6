"""Names that a module may have: what is refused has a nearest that is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sta_hw.errors import InputError
from sta_hw.rtl.names import KEYWORDS, check_hides_nothing, check_name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no name of a module"), ("1x", "begins with a letter"), ("a-b", "the nearest is a_b"),
        ("a__b", "single underscores"), ("module", "keyword of Verilog"), ("logic", "keyword"),
        ("x" * 65, "64 are the most"),
        ("MULT18X18D", "a cell of Lattice ECP5"), ("MULT9X9", "Nexus and of Gowin"),
        ("a_bench", "beside another"), ("a_axi", "beside another"), ("std", "Verilator"), ("bool", "Icarus"),
        ("sta_hw_primitives", "the nearest is my_sta_hw_primitives"), ("STA_HW", "begins with sta_hw"),
        ("_sta_hw_x_axi", "the nearest is my_sta_hw_x_axi_0"), ("größe", "the nearest is gr_e"),
        ("a b", "a_b"), ("a\n", "the nearest is a_"), ("../a", "the nearest is _a"), ("a$b", "a_b"),
    ],
)  # fmt: skip
def test_refused(name: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        check_name(name)
    assert why in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["accelerator", "a", "_a", "A9_", "x" * 64, "Module", "sta_hwx"])
def test_taken(name: str) -> None:
    check_name(name)


def test_a_name_that_something_inside_has() -> None:
    """A port, a signal, in this module and in another, and an argument of a function alone."""
    text = (
        "module one(clk, a_0);\n  input clk;\n  wire [1:0] net ;\n  reg held = 1'h0;\n"
        "  function [0:0] f;\n    input [0:0] a;\n  endfunction\nendmodule\n\nmodule two();\n  wire other;\nendmodule\n"
    )
    for name in ("clk", "net", "held"):
        with pytest.raises(InputError, match=f"Verilator compiles none so; the nearest is {name}_0"):
            check_hides_nothing(name, text.replace("module one(", f"module {name}("))
    assert check_hides_nothing("a", text.replace("module one(", "module a("))
    assert not check_hides_nothing("other", text.replace("module one(", "module other("))


@given(
    st.one_of(
        st.text(max_size=80),
        st.sampled_from(sorted(KEYWORDS)),
        st.from_regex(r"(sta_hw_)?\w{1,8}(_bench|_example|_axi)"),
    )
)
def test_the_nearest_is_taken(name: str) -> None:
    try:
        check_name(name)
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    except InputError as error:
        check_name(str(error).rpartition("the nearest is ")[2].removesuffix("."))
