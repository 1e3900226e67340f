"""Parsing of command lines. A command is a typed function: its signature defines the options, its docstring the help.
A mistake of the user gives one line on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import functools
import inspect
import io
import itertools
import logging
import os
import re
import signal
import sys
import threading
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from avsc_e2e.errors import AvscError

Positional = tyro.conf.Positional
Flat = tyro.conf.arg(name="")
"""Marks a parameter that is a dataclass: its fields are options without a prefix."""
Paths = Annotated[tuple[Path, ...], Positional]
For = Annotated[str, tyro.conf.arg(name="for")]
"""An option `--for`, which cannot be the name of a Python variable."""
Places = Annotated[tuple[str, ...], Positional]
"""Paths or URLs."""


def likely(given: str, known: Sequence[str]) -> str:
    """ "did you mean X?", or "" if no known name is close."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""


def unknown(what: str, given: str, known: Sequence[str]) -> str:
    """A message that a name is unknown, with the likely name or all known ones."""
    return f"unknown {what} {given!r}: {likely(given, known) or 'known are ' + ', '.join(known)}"


def call(function: Callable[..., int | None], program: str, argv: Sequence[str]) -> int | None:
    """Parse options and call a function with them. Raises AvscError, one line, for mistaken options."""
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            bound = tyro.cli(_deferred(function), prog=program, args=list(argv))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        told = _unknown_flag(function, argv) or _mistake(caught.getvalue())
        raise AvscError(f"{program}: {told}") from None
    for value in (*bound.args, *bound.keywords.values()):
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and (match := re.match(r"([a-z][a-z0-9+.-]+):/(?=[^/])", str(path))):
                url = f"{match[1]}://{str(path)[match.end() :]}"
                raise AvscError(f"{url}: is a URL, but a file or folder of this machine is needed; download it first")
    return bound()


def flags_of(verb: Callable, value: object) -> Callable:
    """A command whose first parameter is a dataclass: its fields are options without a prefix, with the defaults of
    `value`."""
    signature = inspect.signature(verb)
    first, *others = signature.parameters.values()
    hints = typing.get_type_hints(verb, localns={type(value).__name__: type(value)}, include_extras=True)
    hints[first.name] = Annotated[type(value), Flat]
    signature = signature.replace(parameters=[first.replace(default=value), *others])
    return _dressed(lambda **values: verb(**values), verb, hints, signature)


def in_short(value: object, shown: Collection[str], prefix: str = "") -> object:
    """The same dataclass value, with all fields but those of `shown`, such as "data.root", left out of `--help`."""
    kind, values = type(value), dict(vars(value))
    hints: dict[str, object] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        path = prefix + name
        if any(one.startswith(f"{path}.") for one in shown):
            values[name] = in_short(values[name], shown, f"{path}.")
            hints[name] = type(values[name])
        else:
            hints[name] = hint if path in shown else Annotated[hint, tyro.conf.Suppress]
    names = {"__annotations__": hints, "__doc__": kind.__doc__, "__module__": kind.__module__}
    short: object = object.__new__(type(kind.__name__, (kind,), names))
    vars(short).update(values)
    return short


def _dressed(function: Callable, like: Callable, hints: dict, signature: inspect.Signature) -> Callable:
    """`function` with the name and help of `like`, and these types and defaults."""
    function.__name__, function.__doc__, function.__module__ = like.__name__, like.__doc__, like.__module__
    function.__annotations__ = hints
    vars(function)["__signature__"] = signature
    return function


def _deferred(function: Callable) -> Callable:
    """The same signature, but a call only binds the arguments, so that errors of parsing and of the work are separate.
    Positional arguments are shown by their names."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, hint in hints.items():
        if Positional in typing.get_args(hint)[1:]:
            many = " ..." if typing.get_origin(typing.get_args(hint)[0]) is tuple else ""
            hints[name] = Annotated[hint, tyro.conf.arg(metavar=name.upper() + many)]
    bind = lambda *args, **kwargs: functools.partial(function, *args, **kwargs)  # noqa: E731
    return _dressed(bind, function, hints, inspect.signature(function))


def _unknown_flag(function: Callable, argv: Sequence[str]) -> str:
    """A message about the first unknown option, or "". The parser itself would take it for a missing value."""
    parameters = inspect.signature(function).parameters.values()
    if any(dataclasses.is_dataclass(one.default) for one in parameters):
        return ""
    names = [one.name.replace("_", "-") for one in parameters]
    known = ["--help", *(f"--{name}" for name in names), *(f"--no-{name}" for name in names)]
    given = (word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--"))
    odd = next((flag for flag in given if flag not in known and flag != "--"), "")
    hint = likely(odd, known) or "--help lists the options"
    return f"unknown option {odd}: {hint}" if odd else ""


def _mistake(box: str) -> str:
    """The text in tyro's box of an error, as one line."""
    inside = [re.sub(r"^[│| ] | *[│|]? *$", "", line) for line in box.splitlines()[1:]]  # borders are blank in ASCII
    lines = [line for line in inside if not re.fullmatch(r"[-─+╭╮╰╯ ]*", line)]
    lines = list(itertools.takewhile(lambda line: not line.startswith("For full helptext"), lines))
    options = [line.strip() for line in lines if re.match(r" {4}(-|[A-Z]+( \.\.\.)?$)", line)]
    text = " ".join(line.strip() for line in lines)
    if text.startswith("Missing from"):
        missing = []
        for line in lines[1:]:
            if line.strip() in options:
                missing.append(f"{line.split()[0]} is missing:")
            else:
                missing[-1] += f" {line.strip()}"
        return "; ".join(one.removesuffix(" (required)").rstrip(".") for one in missing)
    if match := re.match(r"Unrecognized options: (.*?)(?= Arguments similar| Perhaps|$)", text):
        given = match[1].split(", ")
        flags = [word for word in given if word.startswith("-")]
        close = " or ".join(dict.fromkeys(option.split()[0].rstrip(",") for option in options))
        hint = f"did you mean {close}?" if close else "--help lists the options"
        return f"unknown option {', '.join(flags)}: {hint}" if flags else f"unexpected {', '.join(given)}: {hint}"
    if match := re.match(r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*?)(?= Argument|$)", text):
        return f"{match[1]}: {match[2]} is not a whole number"
    if match := re.match(r"Error parsing (\S+): could not convert string to float: (.*?)(?= Argument|$)", text):
        return f"{match[1]}: {match[2]} is not a number"
    if match := re.match(r"invalid choice (.*) for argument '(.*?)'. Expected one of \((.*?),?\)", text):
        return f"{match[2]}: {match[1]} is none of {match[3]}"
    if match := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{match[1]}: its value is missing"
    return text or "mistaken options; --help lists them"


@contextlib.contextmanager
def one_line_errors():
    """AvscError ends with one line on stderr and status 2, SIGINT and SIGTERM with one line and the status of a signal;
    a second SIGTERM ends the process at once. Other exceptions are defects and keep their traceback."""
    terminated = []

    def terminate(number: int, _frame: object) -> None:
        terminated.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    ours = before == signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except AvscError as error:
        print(f"error: {' '.join(f'{error}'.split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{'terminated' if terminated else 'interrupted'}: what was finished is kept", file=sys.stderr)
        sys.exit(143 if terminated else 130)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        told = f"{error.filename or 'the output'}: cannot be written ({error.strerror}): make room and run it again"
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("avsc_e2e").setLevel(logging.INFO)
