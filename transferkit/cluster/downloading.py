"""``tk.download``: by this process, or by several of this machine."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from transferkit import bulk
from transferkit.arguments import Blobs, Path, Progress, check, options_of
from transferkit.cancellation import Cancellation
from transferkit.options import TransferOptions
from transferkit.report import Report
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transport.auth import Auth, GetToken

if TYPE_CHECKING:
    import requests


def download(
    blobs: Blobs,
    dest_dir: Path,
    *,
    base_url: str,
    repository: str,
    processes: int | None = None,
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
    """Download blobs into a folder, as ``sha256-<hex>`` files, and return what was done.

    A blob of up to ``chunk_threshold`` bytes takes one request, a larger one a request for each chunk. Size and digest
    are checked while it streams, and its name appears only after that. Blobs that are in ``dest_dir`` already are
    verified once and skipped. A large one that was interrupted continues where it stopped. ``dest_dir`` is made if need
    be; without blobs, nothing is done at all. Several calls, also of other processes, may share it. Of a ``Manifest``
    in the place of the blobs all that it names is downloaded, its config too.

    ``progress(completed, total)`` gets bytes and is called from this thread; ``True`` draws a bar. ``auth`` is (user,
    password) or a function of the registry's host that returns that or ``None``; ``token`` a fixed token;
    ``get_token(challenge)`` a function that brings one, called from a worker thread: while it runs the call cannot be
    stopped, and what it raises comes out of the call as it is. A keyword beats the option of the same name.

    With ``processes`` so many processes do it (:doc:`scale` says when that pays), and a :class:`ClusterReport` is
    returned. They are spawned, so a script has to call this under ``if __name__ == "__main__":``, functions have to be
    ones that can be pickled, and there is no ``session``. ``concurrency`` and ``max_bandwidth`` are divided between
    them.

    Raises:
        InvalidDigestError, InvalidDescriptorError, InvalidNameError: an argument is malformed; nothing was done.
        TypeError: an argument is of the wrong type; nothing was done.
        IncompleteError: some blobs failed, for the reasons in ``.failures``; the others are in place.
        StorageError, UnauthorizedError, CertificateError, ConnectError: it would be the same for every blob.
        CancelledError: ``cancel`` was triggered. A later call goes on where this one stopped.

    >>> from transferkit import Blob
    >>> from transferkit.testing import running_registry
    >>> import tempfile
    >>> with running_registry() as registry:
    ...     where = {"base_url": registry.url, "repository": "library/hello"}
    ...     download([], tempfile.mkdtemp(), processes=2, **where).blobs
    0
    """
    if processes is None:
        return bulk.download(
            blobs,
            dest_dir,
            base_url=base_url,
            repository=repository,
            concurrency=concurrency,
            progress=progress,
            auth=auth,
            token=token,
            get_token=get_token,
            session=session,
            user_agent=user_agent,
            stall_timeout=stall_timeout,
            logger=logger,
            cancel=cancel,
            trace=trace,
            options=options,
        )
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ValueError(f"processes is a number, at least 1, not {processes!r}")
    if session is not None:
        raise TypeError("a session stays in its process: with processes=, pass auth=, token=, get_token= and options=")
    check(dest_dir=dest_dir, progress=progress, auth=auth, token=token, get_token=get_token, options=options)
    check(user_agent=user_agent, stall_timeout=stall_timeout, concurrency=concurrency, trace=trace)
    from transferkit.cluster.running import run_plan
    from transferkit.registry.plans import plan_download

    plan = plan_download(blobs, base_url=base_url, repository=repository)
    if not plan.blobs:
        return Report()
    options = options_of(options, user_agent, concurrency=concurrency, stall_timeout=stall_timeout)
    each: dict[str, Any] = {}
    if options.max_bandwidth is not None:
        each["max_bandwidth"] = max(1.0, options.max_bandwidth / processes)
    given = {"auth": auth, "token": token, "get_token": get_token}
    settings = {name: value for name, value in given.items() if value is not None}
    return run_plan(
        plan,
        to=os.fspath(dest_dir),
        processes=processes,
        concurrency=None if options.concurrency is None else max(1, options.concurrency // processes),
        progress=progress,
        trace=trace,
        cancel=cancel,
        logger=logger,
        settings={**settings, "options": options_of(options, None, **each)},
    )
