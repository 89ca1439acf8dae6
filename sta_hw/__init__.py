"""STA-HW: a generator of accelerators for N:M sparse Transformers."""

__version__ = "0.1.0"
