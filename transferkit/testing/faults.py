"""Which requests go wrong, and how often: middleware before any WSGI application.

Knows matching and counting. What goes wrong is an action of :mod:`transferkit.testing.actions`, or one of the test's
own: any function from an application to an application is an action.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    Action: TypeAlias = Callable[[WSGIApplication], WSGIApplication]


class FaultRule:
    """An action for the requests that match. Thread-safe; ``hits`` counts how often it acted.

    Matched are the ``method``, the ``path`` (a text within the percent-decoded path and query, or a compiled pattern
    that is searched in it), and ``where``, which is given the WSGI environment; what is left out matches all. The rule
    lets the first ``skip`` of these requests go by, acts on the next ``times`` (``None``: on all), and is done.

    >>> from transferkit.testing import respond
    >>> busy = respond(503, retry_after=1)
    >>> rule = FaultRule(busy, method="GET", path="/blobs/", times=2)
    >>> rule.hits
    0
    """

    def __init__(
        self,
        action: Action,
        *,
        method: str | None = None,
        path: str | re.Pattern[str] | None = None,
        where: Callable[[WSGIEnvironment], bool] | None = None,
        skip: int = 0,
        times: int | None = None,
    ) -> None:
        self.action = action
        self.method = method
        self.path = path
        self.where = where
        self.skip = skip
        self.times = times
        self._lock = threading.Lock()
        self._matched = 0

    @property
    def hits(self) -> int:
        with self._lock:
            hits = max(self._matched - self.skip, 0)
        return hits if self.times is None else min(hits, self.times)

    def takes(self, environ: WSGIEnvironment) -> bool:
        """Tell whether it acts on this request, and count that."""
        if not self._matches(environ):
            return False
        with self._lock:
            self._matched += 1
            matched = self._matched - self.skip
        return matched > 0 and (self.times is None or matched <= self.times)

    def _matches(self, environ: WSGIEnvironment) -> bool:
        if self.method is not None and environ["REQUEST_METHOD"] != self.method:
            return False
        if self.path is not None:
            query = environ.get("QUERY_STRING")
            target = f"{environ['PATH_INFO']}?{query}" if query else environ["PATH_INFO"]
            found = self.path in target if isinstance(self.path, str) else self.path.search(target) is not None
            if not found:
                return False
        return self.where is None or self.where(environ)

    def __repr__(self) -> str:
        wanted = (("method", self.method), ("path", self.path), ("where", self.where), ("times", self.times))
        told = "".join(f" {name}={value!r}" for name, value in wanted if value is not None)
        return f"<FaultRule{told}: {self.hits} hits>"


class HTTPFaults:
    """Middleware with rules that can be changed while the server runs. Thread-safe.

    Every rule that takes a request acts on it; the first one is the outermost, so that an answer of its own keeps the
    rules after it from seeing, and counting, the request.

    >>> import http.client
    >>> from transferkit.testing import respond, running_registry
    >>> faults = HTTPFaults()
    >>> with running_registry(middleware=faults) as registry:
    ...     teapot = FaultRule(respond(418), path="/v2/", times=1)
    ...     faults.set(teapot)
    ...     host = registry.url.removeprefix("http://")
    ...     connection = http.client.HTTPConnection(host)
    ...     for _ in range(2):
    ...         connection.request("GET", "/v2/")
    ...         with connection.getresponse() as response:
    ...             print(response.status, len(response.read()))
    ...     connection.close()
    418 0
    200 2
    >>> teapot.hits
    1
    """

    def __init__(self, *rules: FaultRule) -> None:
        self._rules = rules

    @property
    def rules(self) -> tuple[FaultRule, ...]:
        return self._rules

    def set(self, *rules: FaultRule) -> None:
        """Take these rules in place of the former ones; requests under way keep theirs."""
        self._rules = rules

    def __call__(self, app: WSGIApplication) -> FaultyApp:
        return FaultyApp(app, self)

    def __repr__(self) -> str:
        return f"<HTTPFaults: {', '.join(map(repr, self._rules))}>"


class FaultyApp:
    """An application behind :class:`HTTPFaults`."""

    def __init__(self, app: WSGIApplication, faults: HTTPFaults) -> None:
        self._app = app
        self.faults = faults

    @property
    def rules(self) -> tuple[FaultRule, ...]:
        return self.faults.rules

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _Rest(self._app, self.rules)(environ, start_response)


class _Rest:
    """The application behind those rules that have not seen the request yet."""

    def __init__(self, app: WSGIApplication, rules: tuple[FaultRule, ...]) -> None:
        self._app = app
        self._rules = rules

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for index, rule in enumerate(self._rules):
            if rule.takes(environ):
                return rule.action(_Rest(self._app, self._rules[index + 1 :]))(environ, start_response)
        return self._app(environ, start_response)


def with_faults(app: WSGIApplication, *rules: FaultRule) -> FaultyApp:
    """Return ``app`` behind these rules.

    >>> from transferkit.testing import running_registry, set_header
    >>> rule = FaultRule(set_header("Docker-Content-Digest", None), method="HEAD")
    >>> faulty = lambda app: with_faults(app, rule)
    >>> with running_registry(middleware=faulty) as registry:
    ...     print(rule)
    <FaultRule method='HEAD': 0 hits>
    """
    return HTTPFaults(*rules)(app)
