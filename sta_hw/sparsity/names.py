"""The methods by name, for commands that look at names before PyTorch is loaded."""

from __future__ import annotations

__all__ = ["METHODS", "ONE_SHOT"]

ONE_SHOT = ("magnitude", "wanda", "sparsegpt", "sparsegpt-asymmetric")
METHODS = (*ONE_SHOT, "sr-ste", "idp", "domino")
