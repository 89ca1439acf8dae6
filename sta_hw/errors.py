"""Exceptions that the command line turns into one readable message and an exit status."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CheckError", "ConfigError", "InputError", "ToolError"]


class InputError(Exception):
    """Bad input from the user: a file, an option or data. Exit status 2."""


class ConfigError(InputError, ValueError):
    """One or more parameters that do not fit together.

    Parameters
    ----------
    problems : sequence of str
        One sentence per problem: the value, the rule, the nearest valid choice.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CheckError(Exception):
    """A comparison or a bar that did not hold. Exit status 1."""


class ToolError(Exception):
    """A tool or the environment failed: a compiler that is missing, a disk that is full. Exit status 3.

    The message says what failed and how to mend it.
    """
