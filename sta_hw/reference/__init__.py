"""The numpy reference: what hardware computes, bit for bit, without anything of the RTL."""
