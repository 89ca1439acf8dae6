"""Runs products on hardware, simulated or real."""
