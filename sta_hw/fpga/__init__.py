"""From Verilog to FPGAs: parts, synthesis, place and route, boards, the link to a board."""
