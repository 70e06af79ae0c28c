"""What the environment says of proxies, authorities and credentials, and which variable or file says it. No secret."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transferkit.content.finding import Finding
from transferkit.protocol.origin import redact
from transferkit.transport.credentials import MAX_FILE, StoredCredentials

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # in this order, as requests reads them
_OTHERS = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # OpenSSL's, which requests does not ask
_SECRETS = ("TRANSFERKIT_TOKEN", "TRANSFERKIT_USERNAME", "TRANSFERKIT_PASSWORD")


def check_network(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield what is set of proxies and of certificate authorities."""
    get = (os.environ if environment is None else environment).get
    found = [(name, value) for low in _PROXIES for name in (low, low.upper()) if (value := get(name))]
    for name, value in found:
        scheme, mark, _ = value.partition("://")
        # Whatever is before the last @ may be a password; some have what cannot stand in a URL as it is.
        host = value.rpartition("@")[2].rpartition("://")[2]
        shown = redact(f"{scheme if mark and scheme.isalnum() else 'http'}://{host}")
        yield Finding(level="note", about="proxy", text=f"{name} is {shown}")
    none = next(((name, value) for name in ("no_proxy", "NO_PROXY") if (value := get(name))), None)
    if none is not None and found:
        yield Finding(level="note", about="proxy", text=f"{none[0]} is {none[1]}: these hosts are reached without one")
    if not found:
        yield Finding(level="ok", about="proxy", text="none is set")
    bundle = next(((name, value) for name in _BUNDLES if (value := get(name))), None)
    if bundle is None:
        yield Finding(level="ok", about="ca", text="certificates are held to those that requests brings (certifi)")
    else:
        yield _bundle(*bundle)
    for name in _OTHERS:
        if (value := get(name)) and bundle is None:
            advice = f"set REQUESTS_CA_BUNDLE={value} as well, or pass --ca-bundle {value}"
            yield Finding(level="warning", about="ca", text=f"{name} is set, and is not read here", advice=advice)


def _bundle(name: str, path: str) -> Finding:
    if not os.path.exists(path) or not os.access(path, os.R_OK):
        advice = f"correct or unset {name}: no https registry can be reached so"
        return Finding(level="problem", about="ca", text=f"{name} is {path}, which cannot be read", advice=advice)
    if os.path.isfile(path):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except OSError as error:
            advice = f"set {name} to a file in PEM format, or to a folder of such files"
            text = f"{name} is {path}, which has no certificates: {getattr(error, 'reason', None) or error}"
            return Finding(level="problem", about="ca", text=text, advice=advice)
    return Finding(level="note", about="ca", text=f"{name} is {path}: certificates are held to that")


def check_credentials(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield where credentials are found, for which hosts, and what is wrong there."""
    environ = os.environ if environment is None else environment
    for name in _SECRETS:
        if environ.get(name):
            text = f"{name} is set, and is shown to whatever registry asks"
            yield Finding(level="note", about="credentials", text=text)
    if environ.get("TRANSFERKIT_USERNAME") and not environ.get("TRANSFERKIT_PASSWORD"):
        advice = "set both, or neither"
        text = "TRANSFERKIT_USERNAME is set, and TRANSFERKIT_PASSWORD is not"
        yield Finding(level="warning", about="credentials", text=text, advice=advice)
    count = 0
    if environ.get("DOCKER_AUTH_CONFIG"):
        count += 1
        yield from _source("DOCKER_AUTH_CONFIG", environ["DOCKER_AUTH_CONFIG"], environ)
    for path in StoredCredentials(environ).paths():
        try:
            with path.open(encoding="utf-8") as file:
                text, status = file.read(MAX_FILE), os.fstat(file.fileno())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            text, advice = f"{path} cannot be read: {why}", "check its permissions"
            yield Finding(level="warning", about="credentials", text=text, advice=advice)
            continue
        count += 1
        yield from _source(str(path), text, environ)
        yield from _mode(path, status, text)
    if not count and not any(environ.get(name) for name in _SECRETS):
        text = "there are none: registries are asked as anybody"
        yield Finding(level="ok", about="credentials", text=text, advice="transferkit login HOST keeps some")


def _mode(path: Path, status: os.stat_result, text: str) -> Iterator[Finding]:
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077 and '"auth"' in text:
        what = f"{path} has passwords, and can be read by other users"
        yield Finding(level="warning", about="credentials", text=what, advice=f"chmod 600 {path}")


def _source(label: str, text: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what one file, or variable, has."""
    try:
        config: Any = json.loads(text) if text.strip() else {}
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        advice = "mend it, or move it away; transferkit login writes a new one"
        what = f"{label} is not JSON: {error}"
        yield Finding(level="warning", about="credentials", text=what, advice=advice)
        return
    auths = config.get("auths")
    hosts = [host for host, entry in auths.items() if entry] if isinstance(auths, dict) else []
    if hosts:
        shown = ", ".join(sorted(hosts)[:10]) + (", ..." if len(hosts) > 10 else "")
        yield Finding(level="note", about="credentials", text=f"{label} has some for {shown}")
    helpers = config.get("credHelpers")
    named = {f"for {host}": name for host, name in helpers.items()} if isinstance(helpers, dict) else {}
    if config.get("credsStore"):
        named["for all others"] = config["credsStore"]
    for whose, name in named.items():
        program = f"docker-credential-{name}"
        what = f"{label} names the helper {program} {whose}"
        if shutil.which(program, path=environ.get("PATH")) is None:
            advice = f"install it, or remove it from {label}"
            yield Finding(level="warning", about="credentials", text=f"{what}, which is not in PATH", advice=advice)
        else:
            yield Finding(level="note", about="credentials", text=what)
    if not hosts and not named:
        yield Finding(level="note", about="credentials", text=f"{label} has none")
