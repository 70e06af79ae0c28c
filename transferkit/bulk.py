"""Many blobs, one repository, one folder: the place where network and disk are joined."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from transferkit.arguments import (
    Blobs,
    Path,
    Progress,
    blobs_of,
    check,
    check_sources,
    descriptors_of,
    directory_of,
    hosts_of,
    options_of,
    shown,
)
from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor, described
from transferkit.content.digest import Digest
from transferkit.errors import BlobNotFoundError
from transferkit.forks import importing
from transferkit.grammar import check_reference
from transferkit.options import TransferOptions
from transferkit.remote.blobs import RepositoryBlobs
from transferkit.report import Report
from transferkit.storage.directory import Directory
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.operation import Operation
from transferkit.transfer.outcomes import ProgressCallback
from transferkit.transport.auth import Auth, GetToken
from transferkit.transport.client import Client

if TYPE_CHECKING:
    import requests

    from transferkit.content.manifest import Index, Manifest
    from transferkit.remote.repository import Repository
    from transferkit.report.plan import Plan

_SETTLING = (0.2, 0.4, 0.8)  # seconds between looks at blobs that a registry has confirmed, and does not find
DOWNLOADS = 64  # at once, as the seed has it; fewer threads start where there are fewer blobs
UPLOADS = 32


def download(
    blobs: Blobs,
    dest_dir: Path,
    *,
    base_url: str,
    repository: str,
    concurrency: int | None = None,
    progress: Progress = None,
    auth: Auth | None = None,
    token: str | None = None,
    get_token: GetToken | None = None,
    session: requests.Session | None = None,
    user_agent: str | None = None,
    stall_timeout: float | None = None,
    logger: logging.Logger | None = None,
    cancel: Cancellation | None = None,
    trace: Trace = NULL_TRACE,
    options: TransferOptions | None = None,
) -> Report:
    """Download blobs into a folder in this process, and return what was done.

    That is ``transferkit.download`` without its ``processes``: there stands what holds for the arguments, and what is
    raised.

    >>> from transferkit import Blob, digest_to_path
    >>> from transferkit.testing import running_registry
    >>> import hashlib, tempfile
    >>> digest = "sha256:" + hashlib.sha256(b"hello").hexdigest()
    >>> folder = tempfile.mkdtemp()
    >>> with open(f"{folder}/{digest_to_path(digest)}", "wb") as file:
    ...     _ = file.write(b"hello")
    >>> with running_registry() as registry:
    ...     where = {"base_url": registry.url, "repository": "library/hello"}
    ...     sent = upload([Blob(digest, 5)], folder, **where)
    ...     report = download([Blob(digest, 5)], tempfile.mkdtemp(), **where)
    >>> sent.bytes, report.bytes, len(report.paths)
    (5, 5, 1)
    """
    check(dest_dir=dest_dir, progress=progress, auth=auth, token=token, get_token=get_token, session=session)
    check(user_agent=user_agent, stall_timeout=stall_timeout, concurrency=concurrency, options=options)
    check(logger=logger, cancel=cancel, trace=trace)
    options = options_of(options, user_agent, concurrency=concurrency, stall_timeout=stall_timeout)
    wanted = blobs_of(blobs)
    ceiling = options.concurrency or DOWNLOADS
    with hosts_of(options, session, ceiling + 1, auth=auth, token=token, get_token=get_token) as hosts:
        source = RepositoryBlobs(Client(base_url, hosts, retry=options.retry), repository)
        if not wanted:
            return Report()
        with (
            closing(directory_of(dest_dir, options)) as target,
            shown(progress, repository, wanted, trace) as (callback, trace),
            _operation(source, ceiling, options, callback, trace, cancel, logger) as operation,
        ):
            known = target.known(wanted)
            present = [blob for blob in wanted if blob.digest in known]
            missing = [described(blob) for blob in wanted if blob.digest not in known]
            target.prepare(missing)
            report = operation.copy(missing, source, target, present=present)
    paths = {blob.digest: target.blob_path(blob.digest) for blob in wanted}  # type: ignore[arg-type]  # a Digest
    return replace(report, paths=paths)


def upload(
    blobs: Blobs,
    src_dir: Path,
    *,
    base_url: str,
    repository: str,
    manifest: bytes | None = None,
    manifest_ref: str | None = None,
    manifest_media_type: str | None = None,
    auth: Auth | None = None,
    token: str | None = None,
    get_token: GetToken | None = None,
    session: requests.Session | None = None,
    options: TransferOptions | None = None,
    user_agent: str | None = None,
    concurrency: int | None = None,
    stall_timeout: float | None = None,
    progress: Progress = None,
    trace: Trace = NULL_TRACE,
    logger: logging.Logger | None = None,
    cancel: Cancellation | None = None,
) -> Report:
    """Upload ``sha256-<hex>`` files of a folder, and then a manifest, if one is given, byte for byte.

    Blobs that the repository has are not sent; one with a ``source`` is mounted from there where the registry can.
    All files are looked for before the first request, and hashed while they are sent. The manifest goes out only
    after every blob is in place, under ``manifest_ref`` (a tag or its digest; by default its digest).

    Raises:
        SourceError: a file is missing, unreadable, of another size, or not what its digest says; no manifest was sent.
        IncompleteError: some blobs failed, for the reasons in ``.failures``; no manifest was sent.
        InvalidManifestError, InvalidNameError: the manifest or its tag is malformed; nothing was done.
        DigestMismatchError: ``manifest_ref`` is the digest of something else; nothing was done.
        StorageError, UnauthorizedError, CertificateError, ConnectError, CancelledError: as for ``download``.
    """
    check(src_dir=src_dir, manifest=manifest, manifest_ref=manifest_ref, manifest_media_type=manifest_media_type)
    check(auth=auth, token=token, get_token=get_token, session=session, user_agent=user_agent, options=options)
    check(concurrency=concurrency, stall_timeout=stall_timeout, progress=progress, trace=trace)
    check(logger=logger, cancel=cancel)
    with importing:  # in this thread, and not by a first download
        from transferkit.remote import manifests
        from transferkit.remote.repository import Repository
        from transferkit.storage.uploads import UploadNotes
    options = options_of(options, user_agent, concurrency=concurrency, stall_timeout=stall_timeout)
    descriptors = descriptors_of(blobs)
    ceiling = options.concurrency or UPLOADS
    parsed = manifests.check(manifest, manifest_ref, manifest_media_type)
    with hosts_of(options, session, ceiling + 1, auth=auth, token=token, get_token=get_token) as hosts:
        source = directory_of(src_dir, options)
        client = Client(base_url, hosts, retry=options.retry)
        notes = UploadNotes(source.path, f"{client.base_url} {repository}", threshold=options.resume_threshold)
        target = Repository(client, repository, part_size=options.part_size, notes=notes)
        check_sources(source, descriptors)
        with (
            closing(notes),
            shown(progress, repository, descriptors, trace) as (callback, trace),
            _operation(target, ceiling, options, callback, trace, cancel, logger) as operation,
        ):
            report = operation.copy(descriptors, source, target) if descriptors else Report()
            if parsed is not None:
                reference = manifest_ref or parsed.digest
                push = partial(target.push_manifest, parsed.raw, reference, media_type=parsed.media_type)
                report = _push_manifest(push, operation, descriptors, source, target, report)
    return report


def _operation(
    remote: RepositoryBlobs,
    ceiling: int,
    options: TransferOptions,
    progress: ProgressCallback | None,
    trace: Trace,
    cancel: Cancellation | None,
    logger: logging.Logger | None,
) -> Operation:
    return Operation(
        host=str(remote.client.origin),
        concurrency=ceiling,
        options=options,
        progress=progress,
        trace=trace,
        cancellation=cancel,
        logger=logger,
    )


def _push_manifest(
    push: Callable[..., Digest],
    operation: Operation,
    blobs: list[Descriptor],
    source: Directory,
    target: Repository,
    report: Report,
) -> Report:
    """Push a manifest, and return what was done in all. A registry that does not find the blobs that it has just
    confirmed is given a moment (image-registry#220); then what it does not have is sent again."""
    for wait in (*_SETTLING, 0.0):
        try:
            operation.call(lambda flow: push(flow=flow))
            return report
        except BlobNotFoundError as error:
            refusal = error
        if not blobs:
            break
        operation.call(partial(WorkerFlow.wait, seconds=wait, why="registry"))
    missing = operation.call(lambda flow: [d for d in blobs if not target.may_have(d, flow=flow)])
    if not missing:
        raise refusal
    again = operation.copy(missing, source, target, present=[blob for blob in blobs if blob not in missing])
    operation.call(lambda flow: push(flow=flow))
    moved, retried = report.bytes + again.bytes, report.retried + again.retried + len(missing)
    healed, seconds = report.healed + again.healed, report.seconds + again.seconds
    return replace(report, bytes=moved, retried=retried, healed=healed, seconds=seconds, record=again.record)


def fetch_manifest(
    reference: str,
    *,
    base_url: str,
    repository: str,
    auth: Auth | None = None,
    token: str | None = None,
    get_token: GetToken | None = None,
    session: requests.Session | None = None,
    user_agent: str | None = None,
    cancel: Cancellation | None = None,
    options: TransferOptions | None = None,
) -> Manifest | Index:
    """Fetch the manifest of a tag or a digest: the list of blobs that ``download`` is then called with.

    A tag with one for each platform has an :class:`Index` of them: choose one, and fetch it by its digest. The
    bytes are checked against the digest asked for and against the one that the registry announces.

    Raises:
        ManifestNotFoundError: the repository has no such tag or digest.
        InvalidManifestError, DigestMismatchError: what came is no manifest, or not this one.
        InvalidNameError, InvalidDigestError, TransportError, RegistryError, CancelledError: as for ``download``.
    """
    check(auth=auth, token=token, get_token=get_token, session=session, user_agent=user_agent, cancel=cancel)
    check(options=options)
    with importing:
        from transferkit.remote.repository import Repository
    options = options_of(options, user_agent)
    check_reference(reference)
    with hosts_of(options, session, 1, auth=auth, token=token, get_token=get_token) as hosts:
        source = Repository(Client(base_url, hosts, retry=options.retry), repository)
        with Operation(host=str(source.client.origin), options=options, cancellation=cancel) as operation:
            return operation.call(lambda flow: source.fetch_manifest(reference, flow=flow))


def plan(
    blobs: Blobs,
    dest_dir: Path,
    *,
    cancel: Cancellation | None = None,
    options: TransferOptions | None = None,
) -> Plan:
    """Tell what ``download`` of these blobs into this folder would move, without a request and without moving a byte.

    Files of unknown origin in the folder are hashed, and remembered, as ``download`` does it.

    Raises:
        InvalidDigestError, InvalidDescriptorError: an argument is malformed.
        StorageError: the folder cannot be read.
        CancelledError: ``cancel`` was triggered.
    """
    check(dest_dir=dest_dir, cancel=cancel, options=options)
    with importing:
        from transferkit.report.plan import Plan
    options = options or TransferOptions()
    descriptors = descriptors_of(blobs)
    target = directory_of(dest_dir, options)
    with closing(target), Operation(options=options, cancellation=cancel) as operation:
        missing = operation.call(lambda flow: [d for d in descriptors if not target.exists(d, flow=flow)])
    needed, free = target.room_for(missing)
    return Plan(
        blobs=len(descriptors),
        present=len(descriptors) - len(missing),
        bytes=sum(descriptor.size for descriptor in missing) - sum(target.received(missing).values()),
        needed=needed,
        free=free,
    )
