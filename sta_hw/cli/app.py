"""The command line's frame: what every command's arguments are checked for, and how every command ends.

A command ends with status 0; 2 for bad input, 1 for a failed check, 3 for a tool or an environment that failed, 130
when it was interrupted, 129 and 143 when the signals HUP and TERM ended it, 141 when whoever read its output left: with
one sentence on stderr and no traceback.
"""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import CheckError, InputError, ToolError
from .terminal import complain

__all__ = ["SECTIONS", "Unused", "app", "end", "extra_of", "script"]

SECTIONS = {
    "Begin": ("doctor", "demo", "demo-llm"),
    "Choose and generate hardware": ("generate", "fit", "synth", "estimate", "plan", "explore"),
    "Prepare a model": ("import", "prune", "evaluate", "compile", "input"),
    "Run a model": ("run", "embed", "classify", "generate-text", "chat", "report", "trace"),
    "Use a board": ("build", "flash", "selftest"),
    "Measure, and make room": ("bench", "cache"),
}
"""What the commands are for: the parts of `sta-hw --help`, in its order."""

_UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""What Typer raises for all that is wrong with options and arguments; where the class lies differs between versions."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG}
"""What is never the fault of a file's name."""
_named: list[Path] = []
"""The files that the command's arguments name: an error with one of them is bad input."""


@dataclass(frozen=True)
class Unused:
    """Options that a command would ignore, which is refused.

    Attributes
    ----------
    options : sequence of str
        Names of parameters.
    when : function
        Given all parameters by name, tells whether they are ignored.
    why : str
        Completes "--preset is not used ...".
    """

    options: Sequence[str]
    when: Callable[[Mapping[str, Any]], bool]
    why: str


class _Command(TyperCommand):
    unused: Sequence[Unused] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for word in args:
            try:
                os.fsencode(word).decode("utf-8")
            except UnicodeDecodeError:
                raise InputError(
                    f"the argument {word!r} is not text in UTF-8; write it, or name the file, in UTF-8."
                ) from None
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            option = parameter.param_type_name == "option"
            if option and order.count(parameter) > 1 and not parameter.multiple:
                names = " or ".join(dict.fromkeys([parameter.opts[0], *parameter.secondary_opts[:1]]))
                raise InputError(f"{names} is given {order.count(parameter)} times; it takes one value, give it once.")
            values = given.get(parameter.name)
            for value in values if isinstance(values, list | tuple) else [values]:
                # Text may be blank, and a blank or a line's end may be what ends one.
                text = parameter.name in ("text", "stop")
                if isinstance(value, str) and not (value or parameter.name == "text" if text else value.strip()):
                    name = parameter.opts[0] if option else parameter.name.upper()
                    raise InputError(f"{name} is empty; give it a value, or leave it out.")
        left = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = os.fsencode(value).decode("utf-8")
        self._check(ctx)
        return left

    def _check(self, ctx: Any) -> None:
        problems = []
        options = {p.name: p.opts[0] if p.param_type_name == "option" else p.name.upper() for p in self.params}
        for name, value in ctx.params.items():
            values = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(v, float) and not math.isfinite(v) for v in values):
                problems.append(f"{options[name]} {value} is out of range; it is a finite number.")
            _named.extend(v for v in values if isinstance(v, Path))
        for rule in self.unused:
            if not rule.when(ctx.params):
                continue
            for name in rule.options:
                source = ctx.get_parameter_source(name)
                if source is not None and source.name == "COMMANDLINE":
                    problems.append(f"{options[name]} is not used {rule.why}; leave it out.")
        if problems:
            raise InputError("\n".join(problems))


class _Group(TyperGroup):
    """Lists its commands by what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in SECTIONS.items():
            known = [(name, self.commands[name]) for name in names if name in self.commands]
            if known:
                with formatter.section(title):
                    formatter.write_dl([(name, command.get_short_help_str(60)) for name, command in known])


class _App(typer.Typer):
    def command(self, *arguments: Any, unused: Sequence[Unused] = (), **settings: Any) -> Any:
        """As Typer's; `unused` has the options that the command would ignore."""
        return super().command(*arguments, cls=type("Command", (_Command,), {"unused": unused}), **settings)


app = _App(
    cls=_Group,
    help="STA-HW: generate, simulate and measure accelerators for N:M sparse Transformers.",
    epilog="sta-hw COMMAND --help tells a command's options and their defaults, with an example. docs/start.md has the "
    "first steps.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


_INTERRUPTED = "interrupted; files are as they were, or whole."


class _Ended(SystemExit):
    """A signal that asks to end came; no `except Exception`, and nothing that Ctrl-C alone means, takes it."""


@contextmanager
def _orderly() -> Iterator[None]:
    """Signals that ask to end do it as an interruption does: tools are ended, working folders go."""

    def ended(number: int, _: object) -> None:
        raise _Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup, and whoever calls, have theirs
                before[number] = signal.signal(number, ended)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(run: Callable[[], Any]) -> int:
    """Run a command to its end, whatever that is; return its exit status."""
    try:
        with _orderly():
            _prepare_streams()
            status = run() or 0
            sys.stdout.flush()
        if status == 130:  # what Typer makes of an interruption
            complain(_INTERRUPTED)
    except _Ended as signaled:
        which = signal.Signals(int(str(signaled.code)))
        complain(f"ended by {which.name}; files are as they were, or whole.")
        status = 128 + which
    except KeyboardInterrupt:
        complain(_INTERRUPTED)
        status = 130
    except (BrokenPipeError, SystemExit):  # Typer makes the latter of the former
        status = 141
    except Exception as error:
        status = _explain(error)
    # What could not be written must not be tried again when Python ends.
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
            lost = status == 141 and number == 1
        except (OSError, ValueError):
            status = status or 3
            lost = True
        if lost:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return int(status)


def script(main: Callable[..., None], unused: Sequence[Unused] = ()) -> NoReturn:
    """Run a script that is one command as the commands of `sta-hw` are run: each error is a sentence and a status."""
    only = _App(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    only.command(unused=unused)(main)
    sys.exit(end(lambda: only(standalone_mode=False)))


def _prepare_streams() -> None:
    """Nothing that is printed fails for its characters; what is opened never becomes a closed standard stream."""
    closed = [number for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream is None]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if 0 in closed:
        sys.stdin = os.fdopen(0, "r", closefd=False)
    if 2 in closed:
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)
    if 1 in closed:
        sys.stdout = os.fdopen(1, "w", errors="backslashreplace", closefd=False)
        raise ToolError("standard output is closed; redirect it to /dev/null to throw the output away.")
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> int:
    """Print what happened, in one sentence (or one for each thing that is wrong); return the exit status."""
    if os.environ.get("STA_HW_TRACEBACK"):
        traceback.print_exception(error)
    match error:
        case InputError():
            return _said(str(error), 2)
        case CheckError():
            return _said(f"check failed: {error}", 1)
        case ToolError():
            return _said(str(error), 3)
        case typer.Exit():
            return error.exit_code
        case typer.Abort():
            return _said("interrupted.", 130)
        case _UsageError():
            return _explain_usage(error)
        case OSError():
            return _explain_file(error)
        case UnicodeError():
            return _said(f"text is not UTF-8: {error}.", 2)
        case ModuleNotFoundError() if extra := extra_of(error.name or ""):
            return _said(f"{error.name} is not installed; pip install 'sta-hw[{extra}]' brings it.", 3)
        case RecursionError():
            return _said("a file is nested too deeply to be read.", 2)
        case MemoryError():
            return _said(f"out of memory{f' ({error})' if str(error) else ''}; try a smaller size.", 3)
    what = f"{type(error).__name__}: {error}"
    return _said(
        f"this is a mistake in sta-hw: {' '.join(what.split())}; please report it with the command. "
        "STA_HW_TRACEBACK=1 shows where it happened.", 3,
    )  # fmt: skip


def extra_of(module: str) -> str:
    """Which extra of the package brings a module; empty if none does."""
    top = module.partition(".")[0]
    wanted = {"serial": "pyserial", "sklearn": "scikit-learn"}.get(top, top).replace("_", "-")
    for line in metadata.requires("sta-hw") or ():
        name, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        package = re.match(r"[\w-]+", name)
        if extra and extra[1] != "all" and package and package[0].replace("_", "-") == wanted:
            return extra[1]
    return ""


def _said(message: str, status: int) -> int:
    complain(message)
    return status


def _explain_usage(error: Any) -> int:
    """Bad options and arguments, as Typer words them; without any, its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show(file=sys.stderr)
        return 2
    message = " ".join(error.format_message().split()).rstrip(".")
    words = [w if len(w) <= 80 else f"{w[:40]}[...]{w[-20:]}" for w in message.split(" ")]
    help_command = f" (see {context.command_path} --help)" if context else ""
    return _said(f"{' '.join(words)}{help_command}.", 2)


def _explain_file(error: OSError) -> int:
    """Bad input where an argument named the file, otherwise the environment's failure."""
    if error.errno == errno.EPIPE:
        return 141
    name = error.filename if isinstance(error.filename, str) else None
    reason = error.strerror or str(error) or type(error).__name__
    if name is None:
        where = "; temporary files are made where TMPDIR says" if error.errno in _FULL else ""
        return _said(f"the system refuses: {reason}{where}.", 3)
    path = Path(name)
    mine = any(path == p or p in path.parents or path in p.parents for p in _named)
    return _said(f"{name}: {reason}.", 2 if mine and error.errno not in _FULL else 3)
