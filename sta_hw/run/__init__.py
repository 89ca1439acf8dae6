"""Runs compiled programs and products: on the reference, on simulated RTL, on a board."""
