"""Kinds of files by name, against the table of MODELS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.models.kinds import kind_of

WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
CODE = "application/vnd.cncf.model.code.v1.raw"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"


@pytest.mark.parametrize(
    ("media_type", "names"),
    [
        (WEIGHT, "m.safetensors m.gguf m.dduf m.bin m.pt m.pth m.onnx m.h5 m.msgpack m.npz a/b/M.SafeTensors"),
        (
            CONFIG,
            "config.json a.yaml spiece.model a.vocab chat_template.jinja tokenizer.json tokenizer.model vocab.txt",
        ),
        (DOC, "README.md notes.txt LICENSE LICENSE.md license.apache NOTICE paper.pdf a.png b.JPG unet/README.md"),
        (CODE, "modeling_x.py demo.ipynb run.sh tokenizer.py"),
        (DATASET, "train.parquet a.csv b.jsonl c.arrow"),
    ],
)
def test_a_kind_by_name(media_type: str, names: str) -> None:
    found = {name: (kind_of(name).media_type, kind_of(name).is_guessed) for name in names.split()}

    assert dict.fromkeys(names.split(), (media_type, False)) == found


@pytest.mark.parametrize("name", ["weights", "a.xyz", ".gitattributes", "model.safetensors.part", "", "a/b.c/d"])
def test_what_no_rule_knows_is_guessed_to_be_configuration(name: str) -> None:
    kind = kind_of(name)

    assert (CONFIG, True) == (kind.media_type, kind.is_guessed)


@given(st.text(max_size=40))
def test_every_name_has_a_kind(name: str) -> None:
    assert kind_of(name).media_type.startswith("application/vnd.cncf.model.")
