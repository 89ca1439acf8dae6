"""Simulation: harness and models in C++, boards from their pins, random programs, mutants, coverage, formal proofs."""
