"""What the library's errors advise, in the words of the command line: options in the place of keywords."""

from __future__ import annotations

import re

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"(?:allow it with |pass )?TransportOptions\(token_realms=\{'([^']+)'\}\)", r"give --token-realm \1"),
        (r"or pass a session with \.verify, or HostOptions\(ca_bundle=\.\.\.\)", "or give --ca-bundle PATH"),
        (r"HostOptions\(ca_bundle=\.\.\.\)", "--ca-bundle PATH"),
        (r"HostOptions\(insecure=True\)", "--insecure"),
        (r"HostOptions\(scheme=.http.\)", "--plain-http"),
        (r", or pass auth=, token= or get_token=", ""),
        (r'unsupported scheme: "hf": .*', "hf:// is for pull --to DIR, plan pull, and the source of copy"),
        (r"more in \.failures\)", "more: --json has all of them)"),
        (r"pass auth=, token= or get_token=", "log in with: transferkit login HOST"),
        (r"\bpass auth=\(user, password\)", "log in with: transferkit login HOST"),
        (r"the user name and password of auth=", "the user name and password"),
        (r"TRANSFERKIT_OFFLINE, or offline=True", "TRANSFERKIT_OFFLINE, or --offline"),
        (r'\bplatform="all"', "--platform all"),
        (r"\b(overwrite|foreign|ollama)=True", r"--\1"),
        (r"\b(platform|concurrency|only|exclude|format|link|to)=(?=[\s,;.)]|$)", r"--\1"),
    )
)


def in_options(text: str, host: str = "") -> str:
    """Return a message with the options that stand for what it advises; ``host`` is the registry it is about.

    >>> in_options("it is another file now: overwrite=True replaces it")
    'it is another file now: --overwrite replaces it'
    """
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    return text.replace("transferkit login HOST", f"transferkit login {host}") if host else text
