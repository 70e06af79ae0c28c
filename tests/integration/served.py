"""``transferkit serve`` in processes of their own, one of each kind for all the tests of real clients.

Clients that nobody here wrote are no reason for a server to complain: what it said to stderr fails the last test.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.functional.test_serve_command import serve

USER, PASSWORD = "ann", "s3cret"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Served:
    """A server, running."""

    url: str
    folder: Path
    """Of its registry, or of its cache."""
    ca: Path
    """The certificate that its clients have to trust, where it speaks TLS, alone in its folder."""

    @property
    def authority(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]


@contextmanager
def served(folder: Path, *arguments: str | Path, store: Path | None = None, ca: Path = Path()) -> Iterator[Served]:
    with serve(folder / "cache", *map(str, arguments)) as server:
        assert server.url.startswith("http"), server.process.communicate()[1]
        yield Served(server.url, store or folder / "cache", ca)
        code, _, err = server.end()
        assert (0, "") == (code, err)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry for everybody."""
    folder = tmp_path_factory.mktemp("plain")
    with served(folder, "--registry", folder / "store", store=folder / "store") as server:
        yield server


@pytest.fixture(scope="session")
def secure_arguments(
    certificate_authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str | Path], Path]:
    """The arguments for TLS and a password, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("secrets")
    certificate = certificate_authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "trusted").mkdir()
    certificate_authority.cert_pem.write_to_path(str(folder / "trusted/ca.crt"))
    (folder / "password").write_text(f"{PASSWORD}\n")
    tls = ["--tls", folder / "server.pem", folder / "server.key"]
    return [*tls, "--auth", f"{USER}:{folder / 'password'}"], folder / "trusted/ca.crt"


@pytest.fixture(scope="session")
def secure(
    secure_arguments: tuple[list[str | Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A registry with TLS that asks for a password."""
    folder = tmp_path_factory.mktemp("secure")
    arguments, ca = secure_arguments
    with served(folder, "--registry", folder / "store", *arguments, store=folder / "store", ca=ca) as server:
        yield server


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A mirror of a cache, which is empty: tests put into it what they need."""
    with served(tmp_path_factory.mktemp("mirror"), "--mirror") as server:
        yield server


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of 64 MiB, no two parts of which are alike, and its digest."""
    path = tmp_path_factory.mktemp("large") / "blob"
    content = random.Random(64).randbytes(64 * MIB)
    path.write_bytes(content)
    return path, f"sha256:{hashlib.sha256(content).hexdigest()}"
