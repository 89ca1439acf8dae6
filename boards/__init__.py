"""Boards: what is on them, the configuration that fills each, and their top levels."""

from .registry import BOARDS, Board, board

__all__ = ["BOARDS", "Board", "board"]
