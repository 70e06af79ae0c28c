"""Where names lead to: which host speaks for a name, over which scheme, and which mirrors stand before it."""

from __future__ import annotations

import ipaddress
import logging
import threading
from dataclasses import dataclass

from transferkit.content.flow import Flow
from transferkit.errors import CertificateError, ConnectError, TransferKitError, TransportTimeout
from transferkit.grammar import API_HOSTS
from transferkit.names import Name, Reference
from transferkit.options import TransferOptions
from transferkit.protocol.hub_name import HubName
from transferkit.remote.hub import HubClient, HubRepository
from transferkit.remote.mirrors import MirroredRepository
from transferkit.remote.repository import Repository
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts
from transferkit.transport.hub import HubAccess
from transferkit.transport.request import Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Site:
    """The repository of one name, and what it is read from: itself, or its mirrors first."""

    repository: Repository
    source: Repository | MirroredRepository


class Sites:
    """Finds the repositories of names. Thread-safe."""

    def __init__(self, hosts: Hosts, options: TransferOptions) -> None:
        self._hosts = hosts
        self._options = options
        self._schemes: dict[str, str] = {}
        self._lock = threading.Lock()

    def find(self, reference: Reference, flow: Flow) -> Site:
        """Return the site of a reference; a host of this machine whose scheme nobody has said is asked for it once."""
        name = reference.name
        host = API_HOSTS.get(name.host.lower(), name.host)
        given = self._hosts.options_of(f"https://{host}")
        insecure = reference.scheme == "https+insecure"
        scheme = "https" if insecure else reference.scheme
        if not reference.has_scheme:
            scheme = given.scheme or self._schemes.get(host) or self._ask_scheme(host, flow)
        registry = self._repository(f"{scheme}://{host}", name, insecure=insecure)
        mirrors = [self._repository(url, name, mirror=True) for url in given.mirrors]
        return Site(registry, MirroredRepository(mirrors, registry) if mirrors else registry)

    def at(self, base_url: str, repository: str) -> Repository:
        """Return a repository at a base URL, as ``download`` has it."""
        return Repository(Client(base_url, self._hosts, retry=self._options.retry), repository)

    def hub(self, name: HubName) -> HubRepository:
        """Return a repository of the Hugging Face hub.

        Raises:
            ConnectError: offline.
            InvalidNameError: ``HF_ENDPOINT`` is no base URL.
        """
        return HubRepository(HubClient(HubAccess.find(), self._hosts, name, retry=self._options.retry), name)

    def _repository(self, base_url: str, name: Name, *, insecure: bool = False, mirror: bool = False) -> Repository:
        client = Client(base_url, self._hosts, retry=self._options.retry, insecure=insecure, mirror=mirror)
        return Repository(client, name.repository, part_size=self._options.part_size)

    def _ask_scheme(self, host: str, flow: Flow) -> str:
        """Return what a host speaks: https, but for one of this machine that does not."""
        scheme = "https"
        if is_local(host):
            try:
                client = Client(f"https://{host}", self._hosts, retry=self._options.retry)
                # Whatever it answers, it has answered over TLS.
                client.send(Request(method="GET", url="/v2/", ok=range(200, 600)), flow).finish()
            except CertificateError:
                pass  # it speaks TLS; that error is for whoever asks for something
            except (ConnectError, TransportTimeout) as error:
                flow.check()
                scheme = "http"
                logger.debug("%s is asked by http, as it does not speak TLS: %s", host, error)
            except TransferKitError:
                flow.check()
        with self._lock:
            return self._schemes.setdefault(host, scheme)


def is_local(host: str) -> bool:
    """Tell whether a host, with or without a port, is this machine."""
    bare = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare.lower() == "localhost" or bare.lower().endswith(".localhost")


def same_host(one: Repository, other: Repository) -> bool:
    """Tell whether two repositories are of one registry, asked with the same credentials."""
    return one.client.origin == other.client.origin and one.client.host is other.client.host
