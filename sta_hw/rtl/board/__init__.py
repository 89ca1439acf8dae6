"""The serial bridge and top levels of FPGA boards."""
