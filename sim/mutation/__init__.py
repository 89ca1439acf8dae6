"""Mutants of the sources: changes of a module's text, what its tests say to each, and a log of that.

A mutant of RTL that no test fails with is compared with what it was made of: Yosys proves it equivalent, or does not.
`scripts/mutate.py` is the command.
"""
