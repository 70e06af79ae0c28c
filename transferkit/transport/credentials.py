"""Credentials that a machine already has: the environment, Docker's and podman's files, and their helper programs.

Source: Docker's ``config.json`` and credential helper protocol, containers-auth.json(5). ``~/.netrc`` is never read.
Files are read when a registry asks for credentials, and not before.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transferkit.content.flow import Flow
from transferkit.forks import importing

logger = logging.getLogger(__name__)

MAX_FILE = 1024 * 1024  # bytes of a file that are read
_MAX_ANSWER = 64 * 1024  # characters of a helper's answer that are taken
_HELPER_TIMEOUT = 30.0  # seconds; a helper may have to unlock a key chain, or to ask a cloud
_LONG = 5.0  # seconds after which a wait is told
_KEPT = 60.0  # seconds for which a helper's answer is used again: many scopes are asked for at once
HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
_TOKEN_USER = "<token>"  # noqa: S105 - how a helper says that the secret is an identity token
_NONE_THERE = "credentials not found"  # what a helper says, with a failing exit code, where it has none
HUB = "https://index.docker.io/v1/"  # what Docker's files and helpers call Docker Hub
HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credential:
    """What somebody has to show. One of user with password, an identity token and a registry token is there.

    ``found`` says where it is from, for an error; secrets never stand in a repr.
    """

    found: str
    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """A refresh token: a token service gives tokens for it."""
    registry_token: str = field(default="", repr=False)
    """A token that goes to the registry as it is."""

    @property
    def is_pair(self) -> bool:
        return not (self.identity_token or self.registry_token)

    @property
    def what(self) -> str:
        """What it is, and where it is from, as an error names it."""
        kind = "identity token" if self.identity_token else "token" if self.registry_token else "user name and password"
        return f"{kind} of {self.found}"


class StoredCredentials:
    """The credentials of this machine, first found, first taken. Thread-safe.

    ``TRANSFERKIT_TOKEN``, or ``TRANSFERKIT_USERNAME`` with ``TRANSFERKIT_PASSWORD``; ``DOCKER_AUTH_CONFIG``;
    ``REGISTRY_AUTH_FILE``; Docker's ``config.json``; podman's ``auth.json``. In a file the entry of the longest prefix
    of the repository counts; helpers of a host come before a store for all, and both before what the file holds itself.
    ``for_hosts_alone``: what is for whatever registry is asked, as the first two are, is left out.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        for_hosts_alone: bool = False,
        timeout: float = _HELPER_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._for_hosts_alone = for_hosts_alone
        self._timeout = timeout
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, Credential | None, str]] = {}
        self._said: dict[str, object] = {}

    def find(self, host: str, repository: str, flow: Flow | None = None) -> tuple[Credential | None, list[str]]:
        """Return the credential for a repository of ``host``, and what was wrong where it might have been found."""
        problems: list[str] = []
        try:
            return self._find(host, repository, problems, flow), problems
        finally:
            self._warn(host, problems)

    def _find(self, host: str, repository: str, problems: list[str], flow: Flow | None) -> Credential | None:
        get = self._environment.get
        if not self._for_hosts_alone and (token := get("TRANSFERKIT_TOKEN")):
            return Credential("TRANSFERKIT_TOKEN", registry_token=token)
        if not self._for_hosts_alone and (user := get("TRANSFERKIT_USERNAME")):
            return Credential("TRANSFERKIT_USERNAME", user, get("TRANSFERKIT_PASSWORD", ""))
        for label, text in self._files(problems):
            try:
                config = json.loads(text) if text.strip() else {}
                if not isinstance(config, dict):
                    raise ValueError("it is no JSON object")
                found = self._look(config, label, host, repository, problems, flow)
            except (ValueError, RecursionError) as error:
                problems.append(f"{label} cannot be read: {error}")
                continue
            if found is not None:
                return found
        return None

    @property
    def searched(self) -> str:
        """Where credentials are looked for, as an error names it."""
        inline = ["DOCKER_AUTH_CONFIG"] if self._environment.get("DOCKER_AUTH_CONFIG") else []
        general = [] if self._for_hosts_alone else ["TRANSFERKIT_TOKEN", "TRANSFERKIT_USERNAME"]
        return ", ".join([*general, *inline, *map(str, self.paths())])

    def _warn(self, host: str, problems: list[str]) -> None:
        """Say each problem once."""
        mine = object()
        for problem in problems:
            if self._said.setdefault(problem, mine) is mine:  # one step: two workers may find the same
                logger.warning("credentials of %s: %s", host, problem)

    def paths(self) -> list[Path]:
        """Return the files that are looked for, in their order."""
        get = self._environment.get
        home = Path(get("HOME") or os.path.expanduser("~"))
        named = [Path(path)] if (path := get("REGISTRY_AUTH_FILE")) else []
        runtime = [Path(folder, "containers", "auth.json")] if (folder := get("XDG_RUNTIME_DIR")) else []
        podman = Path(get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
        return [*named, docker_config(self._environment), *runtime, podman]

    def _files(self, problems: list[str]) -> Iterator[tuple[str, str]]:
        """Yield the files that there are, as what an error calls them and their text."""
        if inline := self._environment.get("DOCKER_AUTH_CONFIG"):
            yield "DOCKER_AUTH_CONFIG", inline[:MAX_FILE]
        for path in self.paths():
            try:
                with path.open(encoding="utf-8") as file:
                    yield str(path), file.read(MAX_FILE)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                problems.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")

    def _look(
        self,
        config: dict[str, Any],
        label: str,
        host: str,
        repository: str,
        problems: list[str],
        flow: Flow | None,
    ) -> Credential | None:
        """Return what one file knows."""
        is_hub = host in HUB_HOSTS
        helpers = _table(config, "credHelpers")
        names = [helpers.get(name) for name in ((HUB, *sorted(HUB_HOSTS)) if is_hub else (host,))]
        for helper in (next(filter(None, names), None), config.get("credsStore")):
            if not helper:
                continue
            found, problem = self._ask(helper, HUB if is_hub else host, flow)
            if problem:
                problems.append(f"{problem}; {label} names it")
            if found is not None:
                return found
        entries = {normal(key): (key, entry) for key, entry in _table(config, "auths").items()}
        for name in _prefixes(host, repository, is_hub):
            key, entry = entries.get(name, ("", None))
            if isinstance(entry, dict) and (found := _entry(entry, f"{label}, entry {key}")) is not None:
                return found
        return None

    def _ask(self, helper: object, server: str, flow: Flow | None) -> tuple[Credential | None, str]:
        """Return what a helper program says, or what is wrong with it."""
        if not isinstance(helper, str) or HELPER_NAME.match(helper) is None:
            return None, f"{str(helper)[:60]!r} is not the name of a credential helper"
        program = f"docker-credential-{helper}"
        until, found, problem = self._kept.get((helper, server), (0.0, None, ""))
        if self._clock() >= until:
            found, problem = self._run(program, server, flow)
            self._kept[helper, server] = self._clock() + _KEPT, found, problem
        return found, problem

    def _run(self, program: str, server: str, flow: Flow | None) -> tuple[Credential | None, str]:
        try:
            with importing:
                import subprocess  # a millisecond, which only those who have such a program have to pay

            pipe = subprocess.PIPE
            process = subprocess.Popen(  # noqa: S603 - the name was checked, and there is no shell
                [program, "get"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=dict(self._environment)
            )
        except OSError as error:
            return None, f"the credential helper {program} cannot be started: {error.strerror}"
        began, deadline, is_told = self._clock(), time.monotonic() + self._timeout, False
        given: bytes | None = server.encode()
        try:
            while True:
                try:
                    output = process.communicate(given, timeout=min(0.1, self._timeout))[0]
                    break
                except subprocess.TimeoutExpired:
                    given = None
                    if time.monotonic() >= deadline:
                        return None, f"the credential helper {program} did not answer within {self._timeout:g} s"
                    if flow is not None:
                        flow.check()
                    if not is_told and self._clock() - began >= _LONG:
                        is_told = True
                        logger.warning("waiting for the credential helper %s, for %s", program, server)
        finally:
            if is_told:
                waited = self._clock() - began
                logger.info("no longer waiting for the credential helper %s, after %.1f s", program, waited)
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        text = output.decode("utf-8", "replace")[:_MAX_ANSWER]
        if process.returncode:
            said = " ".join(text.split())[:200]
            failed = f"the credential helper {program} failed ({process.returncode})"
            return None, "" if _NONE_THERE in said.lower() else ": ".join(filter(None, (failed, said)))
        try:
            answer = json.loads(text)
            user, secret = answer["Username"], answer["Secret"]
            if not isinstance(user, str) or not isinstance(secret, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            return None, f"the credential helper {program} answered something that is no credential"
        if not secret:
            return None, ""
        if user == _TOKEN_USER:
            return Credential(program, identity_token=secret), ""
        return Credential(program, user, secret), ""


def docker_config(environment: Mapping[str, str]) -> Path:
    """Return where Docker's client keeps its ``config.json``."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    return Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"its {key} are no JSON object")
    return value


def normal(key: str) -> str:
    """Return what an entry is for, without scheme and the version that old clients wrote behind the host."""
    bare = key.partition("://")[2] or key
    for version in ("/v1/", "/v2/", "/v1", "/v2", "/"):
        bare = bare.removesuffix(version)
    return bare


def _prefixes(host: str, repository: str, is_hub: bool) -> Iterator[str]:
    """Yield the names under which an entry may stand, the most specific one first."""
    for name in ("index.docker.io", "docker.io", "registry-1.docker.io") if is_hub else (host,):
        parts = repository.split("/") if repository else []
        while parts:
            yield "/".join((name, *parts))
            parts.pop()
        yield name


def _entry(entry: dict[str, Any], found: str) -> Credential | None:
    """Return the credential in an entry of ``auths``; ``None``: it only says that a helper has it."""

    def text(key: str) -> str:
        value = entry.get(key) or ""
        if not isinstance(value, str):
            raise ValueError(f"{key} of {found} is not a text")
        return value

    if token := text("identitytoken"):
        return Credential(found, identity_token=token)
    if token := text("registrytoken"):
        return Credential(found, registry_token=token)
    user, password = text("username"), text("password")
    if pair := text("auth"):
        try:
            user, colon, password = base64.b64decode(pair, validate=True).decode("utf-8").rstrip("\0").partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise ValueError(f"auth of {found} is not the base64 of user:password") from None
    return Credential(found, user, password) if user or password else None
