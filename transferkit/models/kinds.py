"""Kinds of files: what a file of a model is, told by its name alone.

Source of the kinds: modelpack/model-spec 0.0.7, specs-go/v1/mediatype.go.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is, in the words of ModelPack's media types; ``is_guessed`` where no rule knew its name."""

    name: str
    is_guessed: bool = False

    @property
    def media_type(self) -> str:
        """ModelPack's type of a layer that is the file as it is."""
        return f"application/vnd.cncf.model.{self.name}.v1.raw"


WEIGHT = Kind("weight")
CONFIG = Kind("weight.config")  # of the weights: config.json, the tokenizer, chat templates
DOC = Kind("doc")
CODE = Kind("code")
DATASET = Kind("dataset")

_ENDINGS = {
    ending: kind
    for kind, endings in {
        WEIGHT: ".safetensors .gguf .dduf .bin .pt .pth .onnx .h5 .msgpack .npz",
        CONFIG: ".json .yaml .yml .model .vocab .jinja .tiktoken",
        DOC: ".md .txt .pdf .png .jpg .jpeg .gif .svg .webp",
        CODE: ".py .ipynb .sh",
        DATASET: ".parquet .csv .jsonl .arrow",
    }.items()
    for ending in endings.split()
}
_TEXTS = ("license", "licence", "notice", "copying", "readme")  # with any ending, or with none
_TOKENIZERS = ("vocab.txt", "merges.txt")  # by their ending they would be documentation


def kind_of(path: str) -> Kind:
    """Return the kind of a file by its name, whatever its case; one that no rule knows is guessed to be configuration.

    >>> kind_of("unet/model.safetensors").media_type
    'application/vnd.cncf.model.weight.v1.raw'
    """
    name = path.rpartition("/")[2].lower()
    kind = _ENDINGS.get(name[name.rfind(".") :]) if "." in name else None
    if kind is WEIGHT or kind is CODE:
        return kind
    if name in _TOKENIZERS or name.startswith("tokenizer."):
        return CONFIG
    if name.startswith(_TEXTS):
        return DOC
    return kind or Kind("weight.config", is_guessed=True)
