"""The ends of a copy: what a layout takes, and in which order."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import transferkit as tk
from transferkit.content.graph import collect
from transferkit.content.manifest import Manifest, parse
from transferkit.registry.ends import LayoutEnd, find_end
from transferkit.registry.job import Job
from transferkit.storage.layout import OCILayout
from transferkit.transfer.operation import Operation


def document(content: bytes, **more: Any) -> Manifest:
    layer = {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
    found = parse(json.dumps({"layers": [layer], **more}).encode())
    assert isinstance(found, Manifest)
    return found


def test_a_layout_gives_and_takes_a_graph_with_what_refers_to_it(tmp_path: Path) -> None:
    model = document(b"weights")
    described = {"mediaType": model.media_type, "digest": model.digest, "size": len(model.raw)}
    signature = document(b"signature", subject=described)
    one, two = OCILayout(tmp_path / "one"), OCILayout(tmp_path / "two")
    with ExitStack() as held, Operation() as operation:
        job = Job(operation, None, tk.TransferOptions(), held)  # type: ignore[arg-type]  # no names here
        for content in (b"weights", b"signature"):
            one.put(content)
        one.tag(model, "v1")
        one.add(signature)
        source, target = find_end(job, one.at("v1")), find_end(job, two.at("v2"))
        assert isinstance(target, LayoutEnd)
        assert list(source.referrers(model.digest)) == [signature.digest]
        graph = collect(source.document(), lambda _: None)
        more = collect(source.load(signature.digest), lambda _: None)
        target.take(graph.with_referrers([more]), source, {model.digest: [signature]})
    assert (two.tags(), two.document("v2").raw, two.referrers(model.digest)) == (["v2"], model.raw, [signature.digest])
    assert two.read(signature.layers[0].digest) == b"signature"


def test_without_a_tag_a_layout_calls_it_latest(tmp_path: Path) -> None:
    model, layout = document(b"weights"), OCILayout(tmp_path / "one")
    layout.put(b"weights")
    with ExitStack() as held, Operation() as operation:
        job = Job(operation, None, tk.TransferOptions(), held)  # type: ignore[arg-type]
        find_end(job, layout.at()).take(collect(model, lambda _: None), find_end(job, layout.at()), {})
    assert layout.tags() == ["latest"]
