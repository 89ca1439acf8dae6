"""The hardware, in Amaranth: primitives, matrix engine, units, bus, control, core, and emission of Verilog."""
