"""What a first download in a process imports and does: what it has no use for is paid for by those who have."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import transferkit as tk
from transferkit.testing import RunningRegistry

# Runs in a process that has imported nothing of ours. What it prints: the modules that are there afterwards, those that
# another thread than the calling one has looked for, and the bundles of certificates that were loaded.
CALL = """
import ssl, sys, threading
elsewhere, bundles = [], []
class Watching:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            elsewhere.append(name)
sys.meta_path.insert(0, Watching())
for name in ("load_verify_locations", "load_default_certs", "set_default_verify_paths"):
    def watched(self, *given, call=getattr(ssl.SSLContext, name), **keywords):
        bundles.append(given)
        return call(self, *given, **keywords)
    setattr(ssl.SSLContext, name, watched)
digest, url, folder = sys.argv[1:]
import transferkit as tk
report = tk.download([tk.Blob(digest, 5)], folder, base_url=url, repository="library/hello")
assert report.bytes == 5, report
print((sorted(sys.modules), elsewhere, bundles))
"""
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

USELESS = {
    "asyncio",
    "click",
    "concurrent.futures.process",
    "cryptography",
    "filelock",
    "html",
    "logging.handlers",
    "matplotlib",
    "multiprocessing",
    "numpy",
    "pickle",
    "platform",
    "sqlite3",
    "subprocess",
    "tenacity",
    "tornado",
    "tqdm",
    "transferkit.cli",
    "transferkit.content.graph",
    "transferkit.content.manifest",
    "transferkit.content.title",
    "transferkit.names",
    "transferkit.protocol.hub",
    "transferkit.protocol.hub_name",
    "transferkit.protocol.listing",
    "transferkit.registry",
    "transferkit.remote.listing",
    "transferkit.remote.manifests",
    "transferkit.remote.repository",
    "transferkit.remote.upload",
    "transferkit.render",
    "transferkit.report.folder",
    "transferkit.report.plan",
    "transferkit.report.plot",
    "transferkit.server",
    "transferkit.storage.cache",
    "transferkit.storage.layout",
    "transferkit.storage.uploads",
    "transferkit.testing",
    "transferkit.trace.adapters",
    "transferkit.transport.docker_config",
    "transferkit.transport.hub",
    "transferkit.transport.socks",
    "werkzeug",
}


def test_a_first_download_over_plain_http_imports_no_more_than_it_needs_and_that_in_the_calling_thread(
    registry: RunningRegistry, tmp_path: Path
) -> None:
    (tmp_path / tk.digest_to_path(HELLO)).write_bytes(b"hello")
    tk.upload([tk.Blob(HELLO, 5)], tmp_path, base_url=registry.url, repository="library/hello")

    command = [sys.executable, "-c", CALL, HELLO, registry.url, str(tmp_path / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "" == done.stderr
    modules, elsewhere, bundles = ast.literal_eval(done.stdout)
    assert {"requests", "transferkit.bulk"} <= set(modules)
    assert ([], [], []) == (sorted(USELESS & set(modules)), elsewhere, bundles)
