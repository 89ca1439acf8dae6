"""From a configuration to Verilog and the files that others need to use it."""
