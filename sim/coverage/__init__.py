"""Coverage of RTL: points in a design, which Verilator counts, and what programs had that ran."""
