"""Boards: what is on them, the configuration that fills each, and their top levels."""

from .description import Board
from .registry import BOARDS, board

__all__ = ["BOARDS", "Board", "board"]
