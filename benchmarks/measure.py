"""Run one command in a process of its own, and return what it cost. Knows no contestant.

The environment holds no proxy and no CA bundle but the one of the row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import FAILED, OK, TIMEOUT, Run

LAUNCHER = Path(__file__).with_name("launcher.py")
ROOT = LAUNCHER.parents[1]
_OURS_TO_SET = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle")
_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def environment(*, ca: Path | None, scratch: Path, home: Path = ROOT) -> dict[str, str]:
    """The user's environment without what would lead a contestant elsewhere.

    ``ca`` is the bundle to trust; what lies in ``home`` is imported from there, and the rest from this repository.
    """
    result = {
        name: text
        for name, text in os.environ.items()
        if name.lower() not in _OURS_TO_SET and name not in _CA_VARIABLES and not name.startswith("AWS_")
    }
    result.update(TMPDIR=str(scratch), HOME=str(scratch), XDG_RUNTIME_DIR=str(scratch))
    if home != ROOT:
        result["PYTHONPATH"] = os.pathsep.join((str(home), str(ROOT)))
    if ca is not None:
        result.update(REQUESTS_CA_BUNDLE=str(ca), SSL_CERT_FILE=str(ca))
    return result


def run(command: Sequence[str], *, env: dict[str, str], timeout: float, home: Path = ROOT) -> Run:
    """Run a command in the folder ``home``, to its end or to ``timeout`` (seconds)."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        figures, out, err = Path(scratch, "figures"), Path(scratch, "out"), Path(scratch, "err")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), str(figures), str(timeout), *command],
                cwd=home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
            try:
                launcher.wait()
            finally:
                if launcher.poll() is None:
                    launcher.terminate()  # it takes the contestant with it
                    launcher.wait()
        said = _last_line(err, home) or _last_line(out, home)
        if not figures.is_file():
            return Run(wall=0.0, user=0.0, system=0.0, rss=0, status=FAILED, note=said)
        return parse(figures.read_text(), out.read_text(errors="replace"), said, timeout=timeout)


def parse(figures: str, out: str, said: str, *, timeout: float) -> Run:
    """Turn the line of the launcher and the output of the contestant into a run.

    >>> parse("1.5 0.5 0.25 1024 0 0", '{"call": 1.25}', "", timeout=9).call
    1.25
    """
    wall, user, system, rss, code, timed_out = figures.split()
    status, note = OK, ""
    if timed_out == "1":
        status, note = TIMEOUT, f"ended after {timeout:g} s"
    elif code != "0":
        status, note = FAILED, f"exit code {code}: {said}"
    return Run(
        wall=float(wall),
        user=float(user),
        system=float(system),
        rss=int(rss),
        call=_call(out),
        status=status,
        note=note,
    )


def _last_line(path: Path, home: Path) -> str:
    """Return the last thing said, without where on this machine the code lies."""
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip().replace(str(home), ".").replace(str(ROOT), ".")[:300] if lines else ""


def _call(out: str) -> float | None:
    last = out.strip().rpartition("\n")[2]
    if not last.startswith('{"call"'):
        return None
    return float(json.loads(last)["call"])
