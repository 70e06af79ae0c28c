"""Docker's ``config.json``, written: a user name and a password come in, and go out, and all else in it stays.

Sources: docker/cli ``cli/config/configfile`` (``SaveToWriter``, ``Save``) and ``cli/config/credentials``, and the
protocol of docker-credential-helpers (``store`` and ``erase``). ``transport.credentials`` reads it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from transferkit.errors import InvalidNameError, StorageError
from transferkit.transport.credentials import HELPER_NAME, HUB, HUB_HOSTS, MAX_FILE, docker_config, normal

_TIMEOUT = 60.0  # seconds; a helper may ask somebody to unlock a key chain
_SHOWN = 200  # characters of what a helper says that are repeated
_INDENT = "\t"  # as Docker writes it
_NONE_THERE = "credentials not found"


class DockerConfig:
    """One ``config.json``, by default that of Docker's client on this machine. Safe for several processes at once.

    The file is replaced as a whole, with the mode 0600, so nobody ever reads a half of it. Who changes it locks its
    folder meanwhile; Docker's own client takes no lock.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self.path = Path(path) if path is not None else docker_config(self._environment)
        self._timeout = timeout

    def helper(self, host: str) -> str | None:
        """Return the program that keeps the credentials of ``host``, ``None`` where the file does.

        Raises:
            StorageError: the file cannot be read, or is not what Docker writes.
        """
        return self._helper(self._read(), host)

    def store(self, host: str, user: str, password: str) -> str:
        """Keep a user name and a password for ``host``, and return where: the name of a program, or a path.

        Raises:
            StorageError: the file cannot be read or written, or is not what Docker writes, or the helper failed; the
                file stays as it was.
        """
        if not user or ":" in user:
            raise InvalidNameError("a user name has no colon, and is not empty")
        with self._changes(), suppress(FileExistsError):
            os.makedirs(self._folder, mode=0o700)
        with self._locked():
            return self._store(server_of(host), user, password)

    def _store(self, key: str, user: str, password: str) -> str:
        config = self._read()
        program, auths = self._helper(config, key), self._auths(config)
        for known in [known for known in auths if normal(known) == normal(key)]:
            del auths[known]
        if program is not None:
            given = json.dumps({"ServerURL": _asked_for(key), "Username": user, "Secret": password})
            self._run(program, "store", given, secret=password)
            auths[key] = {}  # as Docker has it: it tells that there is something to log out of
        else:
            auths[key] = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}
        self._write(config)
        return program or str(self.path)

    def erase(self, host: str) -> bool:
        """Forget what is kept for ``host``; ``False``: nothing was.

        Raises:
            StorageError: as for ``store``.
        """
        with self._locked():
            return self._erase(server_of(host))

    def _erase(self, key: str) -> bool:
        config = self._read()
        program, auths = self._helper(config, key), self._auths(config)
        known = [each for each in auths if normal(each) == normal(key)]
        erased = program is not None and self._run(program, "erase", _asked_for(key))
        for each in known:
            del auths[each]
        if known:
            self._write(config)
        return bool(known) or erased

    # -- the file

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process of ours change the file; where the folder cannot be locked, nobody waits."""
        with ExitStack() as stack:
            with suppress(OSError, ImportError):
                import fcntl

                fd = os.open(self._folder, os.O_RDONLY)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}", errno=error.errno) from error
        try:
            config = json.loads(raw[:MAX_FILE].decode("utf-8")) if raw.strip() else {}
            if not isinstance(config, dict) or not isinstance(config.get("auths") or {}, dict):
                raise ValueError("it is not what Docker writes")
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{self.path} is left as it is: {error}; mend it, or move it away") from error
        return config

    def _auths(self, config: dict[str, Any]) -> dict[str, Any]:
        if not config.get("auths"):
            config["auths"] = {}
        auths: dict[str, Any] = config["auths"]
        return auths

    def _write(self, config: dict[str, Any]) -> None:
        """Put a new file in the place of the old one; through a link, where the name is one."""
        path = os.path.realpath(self.path)
        temporary, raw = f"{path}.{os.urandom(8).hex()}.new", _encoded(config)
        with self._changes():
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(raw)
                    file.flush()
                    _give(file.fileno(), path)
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise

    @property
    def _folder(self) -> str:
        return os.path.dirname(os.path.realpath(self.path))

    @contextmanager
    def _changes(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror}", errno=error.errno) from error

    # -- the helper

    def _helper(self, config: dict[str, Any], host: str) -> str | None:
        helpers = config.get("credHelpers")
        server = _asked_for(server_of(host))
        names = (HUB, *sorted(HUB_HOSTS)) if server == HUB else (server,)
        found = (
            next((helpers[name] for name in names if helpers.get(name)), None) if isinstance(helpers, dict) else None
        )
        name = found or config.get("credsStore")
        if not name:
            return None
        if not isinstance(name, str) or HELPER_NAME.match(name) is None:
            raise StorageError(f"{self.path} names a credential helper that is none: {str(name)[:60]!r}")
        return f"docker-credential-{name}"

    def _run(self, program: str, action: str, given: str, *, secret: str = "") -> bool:
        """Have a helper do something; ``False``: it has nothing that could be erased. ``secret`` stands in no error."""
        try:
            done = subprocess.run(  # noqa: S603 - the name was checked, and there is no shell
                [program, action],
                input=given.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=self._timeout,
                env=dict(self._environment),
                check=False,
            )
        except OSError as error:
            raise StorageError(
                f"the credential helper {program}, which {self.path} names, cannot be started: {error.strerror}"
            ) from error
        except subprocess.TimeoutExpired:
            text = f"the credential helper {program} did not answer within {self._timeout:g} s"
            raise StorageError(text) from None  # what it was given stands in that error
        if done.returncode == 0:
            return True
        output = done.stdout.decode("utf-8", "replace")
        for shown in filter(None, (json.dumps(secret)[1:-1], secret)):  # some repeat what they were given
            output = output.replace(shown, "***")
        said = " ".join(output.split())[:_SHOWN]
        if action == "erase" and _NONE_THERE in said.lower():
            return False
        failed = f"the credential helper {program} failed ({done.returncode})"
        raise StorageError(": ".join(filter(None, (failed, said))))


def _encoded(config: dict[str, Any]) -> bytes:
    """Return a file's bytes; half of a surrogate pair, which JSON may spell out and UTF-8 cannot, stays spelled out."""
    try:
        return f"{json.dumps(config, indent=_INDENT, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(config, indent=_INDENT)}\n".encode()


def _give(fd: int, path: str) -> None:
    """Let a new file belong to whom the old one at ``path`` belongs: root may log in for a user (sudo)."""
    with suppress(OSError, AttributeError):  # Windows has no owners
        before, now = os.stat(path), os.fstat(fd)
        if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
            os.fchown(fd, before.st_uid, before.st_gid)


def _asked_for(server: str) -> str:
    """Return what a helper is asked for: a host, without the path that an entry of a file may have."""
    return server if server == HUB else server.partition("/")[0]


def server_of(host: str) -> str:
    """Return what Docker's files and helpers call a registry.

    >>> server_of("docker.io"), server_of("https://ghcr.io/")
    ('https://index.docker.io/v1/', 'ghcr.io')
    """
    bare = normal(host).rstrip("/").lower()
    return HUB if bare in HUB_HOSTS else bare
