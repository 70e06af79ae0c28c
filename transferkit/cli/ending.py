"""How a run ends: which exit code, which line, and what signals and closed pipes do.

The codes of errors are attributes of their classes (``TransferKitError.exit_code``); those that no error has are here.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import click

from transferkit.cli.output import drop_output, printable, write_json
from transferkit.cli.settings import Settings
from transferkit.cli.words import in_options
from transferkit.errors import (
    CancelledError,
    IncompleteError,
    OutOfSpaceError,
    RegistryError,
    RetriesExhaustedError,
    TransferKitError,
)

DONE, FAILED, USAGE, HUNG_UP, INTERRUPTED, CLOSED, TERMINATED = 0, 1, 2, 129, 130, 141, 143
EXIT_CODES = {
    DONE: "Everything that was asked for is done.",
    FAILED: "It failed for a reason that no other code has.",
    USAGE: "The command line is wrong: an unknown option, a name that is none.",
    3: "There is no such model, tag, manifest or blob.",
    4: "The registry wants other credentials, or does not allow it.",
    5: "The network or the registry failed, after all attempts.",
    6: "Content is not what its digest or size says.",
    7: "The disk is full, or has no room for it.",
    8: "Some blobs failed; the others are in place. The same command goes on from there.",
    HUNG_UP: "Its terminal was closed (SIGHUP). What has arrived is kept, as after Ctrl-C; nohup lets it go on.",
    INTERRUPTED: "Interrupted (Ctrl-C). What has arrived is kept, and the same command goes on from there.",
    CLOSED: "Whoever read the output has closed it, as head does.",
    TERMINATED: "Ended by SIGTERM. What has arrived is kept, as after Ctrl-C.",
}
"""What each exit code means."""

# A group without a command: click 8.2 and later say so by an error, and earlier ones write the help themselves.
_NO_COMMAND: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)
_SECRET = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]*://)[^\s/'\"]+@"  # user name and password, which may have an @
    # What may be signed, up to what ends the sentence.
    r"|(?P<query>\?)[^\s'\"<>)\]]*=[^\s'\"<>)\]]*?(?=[,;.:]?(?:[\s'\"<>)\]]|\Z))"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}"
)
_VARIABLES = ("TRANSFERKIT_TOKEN", "TRANSFERKIT_PASSWORD", "HF_TOKEN")
_SHORTEST = 4  # characters of a secret; what is shorter stands in many a word


class Interrupt(KeyboardInterrupt):
    """A signal that ends the run; the library takes it for Ctrl-C, and keeps what it has."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Ended(Exception):
    """The run is over, with this exit code; no error, but the way past click, which has ways out of its own.

    ``why`` is the interrupt that ended it, where one did.
    """

    def __init__(self, exit_code: int, why: str = "") -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code
        self.why = why


def run(call: Callable[[], Any], settings: Settings, arguments: list[str]) -> int:
    """Call, tell of what it ends with, and return the exit code."""
    try:
        return _run(call, settings, arguments)
    except KeyboardInterrupt as interrupt:  # while the end was told
        return int(getattr(interrupt, "exit_code", INTERRUPTED))


def _run(call: Callable[[], Any], settings: Settings, arguments: list[str]) -> int:
    with signals():
        try:
            result = call()
        except click.exceptions.Exit as end:
            return end.exit_code
        except Exception as error:  # noqa: BLE001 - the last one who could say anything about it
            # Where the arguments could not be read, the options in them were not, either.
            settings.as_json = settings.as_json or "--json" in arguments
            settings.debug = settings.debug or "--debug" in arguments
            if isinstance(error, click.Abort):  # at a question
                error = Ended(getattr(error.__context__, "exit_code", INTERRUPTED), "interrupted")
            return _ended(error, settings) if isinstance(error, Ended) else told(error, settings)
        return result if isinstance(result, int) else DONE


def _ended(end: Ended, settings: Settings) -> int:
    if end.why:
        if settings.as_json:
            fields = {"error": CancelledError.__name__, "retryable": False}
            with suppress(OSError, ValueError):
                write_json("error", {**fields, "message": end.why, "exit_code": end.exit_code})
        _say(end.why)
    return end.exit_code


def told(error: Exception, settings: Settings) -> int:
    """Say what went wrong in one line, and return the exit code."""
    message, code = described(error)
    message = scrubbed(message)
    if isinstance(error, _NO_COMMAND):
        _say(error.format_message())
        return USAGE
    if settings.debug and not isinstance(error, click.UsageError):
        _say(scrubbed("".join(traceback.format_exception(error))))
    with suppress(OSError, ValueError):  # a pipe that is closed
        if settings.as_json:
            write_json("error", {**_fields(error), "message": message, "exit_code": code})
    _say(message, head=click.style("error:", fg="red") + " ")
    return code


def _say(text: str, head: str = "") -> None:
    """Write to standard error, where there is one."""
    with suppress(OSError, ValueError):
        click.echo(f"{head}{printable(text, lines=True)}", err=True, color=_color())


def described(error: Exception) -> tuple[str, int]:
    """Return what to say of an error, and its exit code."""
    if isinstance(error, TransferKitError):
        host = (urlsplit(error.url).netloc or error.url) if isinstance(error, RegistryError) else ""
        return in_options(" ".join(str(error).split()), host), error.exit_code
    if isinstance(error, click.UsageError):
        where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return " ".join(error.format_message().split()) + where, USAGE
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split()), error.exit_code
    if isinstance(error, ImportError):
        return f"{error.name} is missing; install it with: pip install 'transferkit[server]'", FAILED
    if isinstance(error, OSError) and error.strerror:
        code = OutOfSpaceError.exit_code if error.errno in (errno.ENOSPC, errno.EDQUOT) else FAILED
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}; --debug shows what was tried", code
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"unexpected {' '.join(what.split())}; run it with --debug, and report what that shows", FAILED


def _fields(error: Exception) -> dict[str, Any]:
    """Return what ``--json`` tells of an error besides its message."""
    kind = type(error)
    if isinstance(error, RetriesExhaustedError):
        kind = kind.__bases__[0] if kind is not RetriesExhaustedError else kind
    fields: dict[str, Any] = {"error": "UsageError" if isinstance(error, click.UsageError) else kind.__name__}
    fields["retryable"] = getattr(error, "retryable", False)
    if isinstance(error, RetriesExhaustedError):
        fields["attempts"] = error.attempts
    if isinstance(error, RegistryError):
        fields |= {"url": error.url, "status": error.status, "code": error.code}
    if isinstance(error, IncompleteError):
        fields["failures"] = [
            {**_fields(each), "digest": digest, "message": scrubbed(str(each))}
            for digest, each in error.failures.items()
        ]
    return fields


def scrubbed(text: str) -> str:
    """Return a text without what may be a secret in it: what the library raises has none, but others' errors may.

    >>> scrubbed("GET https://me:pw@host/v2/?sig=abc said Bearer abcdefgh")
    'GET https://***@host/v2/?*** said Bearer ***'
    """
    for name in _VARIABLES:
        if len(secret := os.environ.get(name, "")) >= _SHORTEST:
            text = text.replace(secret, "***")
    return _SECRET.sub(lambda m: f"{m['url']}***@" if m["url"] else f"{m['query'] or m['scheme']}***", text)


def _color() -> bool | None:
    """Return what click is told of colors: ``None`` leaves it to the terminal. Source: no-color.org."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


@contextmanager
def ways_out() -> Iterator[None]:
    """Turn what click would end a run with in its own way into our own."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        why = "interrupted: what has arrived is kept; the same command goes on from there"
        raise Ended(getattr(interrupt, "exit_code", INTERRUPTED), why) from None
    except OSError as error:
        if type(error) is not BrokenPipeError and (isinstance(error, TransferKitError) or error.errno != errno.EPIPE):
            raise
        drop_output()
        raise Ended(CLOSED) from None


def default_signals() -> None:
    """Let a second signal kill. Who closes a terminal sends SIGHUP twice: by the shell, and by the kernel."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL if each in (signal.SIGINT, signal.SIGTERM) else signal.SIG_IGN)


@contextmanager
def signals() -> Iterator[None]:
    """Have the first signal that ends a run raise :class:`Interrupt`, and the second one kill, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def caught(number: int, _: FrameType | None) -> None:
        default_signals()
        raise Interrupt(number)

    # Whoever starts a program in the background of a shell has SIGINT ignored in it, and nohup has SIGHUP.
    wanted = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = [signal.signal(each, caught) for each in wanted]
    try:
        yield
    finally:
        for each, handler in zip(wanted, before, strict=True):
            signal.signal(each, handler)
