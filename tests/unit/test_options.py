"""Options: their defaults, and the values that they refuse."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import pytest

from transferkit._version import __version__
from transferkit.options import HostOptions, RetryOptions, TransferOptions, TransportOptions, check_hosts


def test_defaults_are_as_documented() -> None:
    assert dataclasses.asdict(TransferOptions()) == {
        "concurrency": None,
        "body_concurrency": None,
        "max_bandwidth": None,
        "chunk_threshold": 16_777_216,
        "chunk_size": None,
        "part_size": None,
        "resume_threshold": 16_777_216,
        "stall_timeout": 10.0,
        "cut_slow": True,
        "progress_interval": 0.1,
        "rehash_existing": False,
        "durable": False,
        "unpack_ratio": 100.0,
        "retry": {"attempts": 6, "patience": 30.0, "max_wait": 5.0, "max_retry_after": 300.0, "free_restarts": 3},
        "transport": {
            "connect_timeout": 10.0,
            "response_timeout": 60.0,
            "commit_timeout": 900.0,
            "token_realms": frozenset(),
            "storage_hosts": frozenset(),
            "ollama_hosts": frozenset(),
            "user_agent": f"transferkit/{__version__}",
        },
    }


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RetryOptions, "attempts", 0),
        (RetryOptions, "patience", -0.1),
        (RetryOptions, "patience", math.nan),
        (RetryOptions, "max_wait", -1),
        (RetryOptions, "max_retry_after", -1),
        (RetryOptions, "free_restarts", -1),
        (TransportOptions, "connect_timeout", 0),
        (TransportOptions, "response_timeout", -1),
        (TransportOptions, "commit_timeout", math.nan),
        (TransportOptions, "user_agent", "a\r\nX-Evil: 1"),
        (TransportOptions, "user_agent", "a\nb"),
        (TransportOptions, "storage_hosts", "10.0.0.1"),
        (TransportOptions, "token_realms", "auth.example.com"),
        (TransferOptions, "concurrency", 0),
        (TransferOptions, "concurrency", 1025),
        (TransferOptions, "resume_threshold", -1),
        (TransferOptions, "stall_timeout", 0),
        (TransferOptions, "stall_timeout", math.nan),
        (TransferOptions, "progress_interval", -0.1),
        (TransferOptions, "progress_interval", math.inf),
        (TransferOptions, "progress_interval", 1e10),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"is at least|not negative|is between|is more than|is one line|is a set"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RetryOptions, "attempts", 1),
        (RetryOptions, "patience", 0.0),
        (RetryOptions, "patience", math.inf),
        (RetryOptions, "max_wait", 0),
        (RetryOptions, "max_retry_after", 0),
        (RetryOptions, "free_restarts", 0),
        (TransportOptions, "connect_timeout", 0.001),
        (TransferOptions, "concurrency", 1),
        (TransferOptions, "concurrency", 1024),
        (TransferOptions, "concurrency", None),
        (TransferOptions, "resume_threshold", 0),
        (TransferOptions, "progress_interval", 0),
        (TransferOptions, "progress_interval", 7 * 24 * 3600),
    ],
)
def test_a_value_at_the_border_is_taken(kind: Any, name: str, value: Any) -> None:
    assert getattr(kind(**{name: value}), name) == value


def test_the_refusal_names_the_option_and_the_value() -> None:
    with pytest.raises(ValueError, match=r"^RetryOptions\.attempts is at least 1, not -3$"):
        RetryOptions(attempts=-3)


@pytest.mark.parametrize("name", ["storage_hosts", "token_realms"])
def test_hosts_may_be_any_collection_and_have_no_case(name: str) -> None:
    given: Any = {name: ["MinIO.localhost:9000", "10.0.0.1"]}
    assert getattr(TransportOptions(**given), name) == frozenset({"minio.localhost:9000", "10.0.0.1"})


@pytest.mark.parametrize("options", [RetryOptions(), TransportOptions(), TransferOptions()])
def test_options_are_frozen_hashable_and_survive_pickle(options: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, dataclasses.fields(options)[0].name, 1)
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(type(options)())


def test_options_are_keyword_only() -> None:
    make: Any = TransferOptions
    with pytest.raises(TypeError):
        make(8)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RetryOptions, "attempts", "6"),
        (RetryOptions, "attempts", 2.5),
        (RetryOptions, "patience", None),
        (RetryOptions, "free_restarts", 0.5),
        (TransportOptions, "connect_timeout", "10"),
        (TransportOptions, "response_timeout", (3, 30)),
        (TransportOptions, "user_agent", b"mine"),
        (TransportOptions, "user_agent", None),
        (TransportOptions, "ollama_hosts", 5),
        (TransportOptions, "storage_hosts", {5}),
        (TransferOptions, "concurrency", "8"),
        (TransferOptions, "concurrency", 2.5),
        (TransferOptions, "chunk_size", 8e6),
        (TransferOptions, "part_size", 8e6),
        (TransferOptions, "chunk_threshold", None),
        (TransferOptions, "max_bandwidth", "20 MB"),
        (TransferOptions, "stall_timeout", None),
        (TransferOptions, "retry", {}),
        (TransferOptions, "retry", 3),
        (TransferOptions, "transport", {"connect_timeout": 5}),
        (TransferOptions, "transport", RetryOptions()),
    ],
)
def test_a_value_of_another_type_is_a_type_error_that_says_what_is_taken(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\.{name} is .+, not "):
        kind(**{name: value})


def test_the_refusal_of_a_type_says_which_one_is_taken() -> None:
    with pytest.raises(TypeError, match=r"^TransferOptions\.chunk_size is at least 1 \(int \| None\), not 8000000\.0$"):
        TransferOptions(chunk_size=8e6)  # type: ignore[arg-type]


def test_hosts_are_named_in_lower_case() -> None:
    options = HostOptions(insecure=True)
    assert {"a.example:5000": options} == check_hosts({"A.Example:5000": options})
    assert {} == check_hosts(None)


@pytest.mark.parametrize(
    ("hosts", "error"), [({"http://a": HostOptions()}, ValueError), ({"a": None}, TypeError), ("a.example", TypeError)]
)
def test_hosts_that_are_none(hosts: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="hosts"):
        check_hosts(hosts)
