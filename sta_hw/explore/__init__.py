"""Exploration: configurations, N:M and models swept over, on as many processes as there are, and kept in a file."""
