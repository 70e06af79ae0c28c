"""The commands that bring something to a registry: push and copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from transferkit.cli.connecting import (
    Connection,
    annotation_option,
    exclude_option,
    only_option,
    transfer_options,
)
from transferkit.cli.output import Output
from transferkit.cli.program import Command
from transferkit.cli.settings import Settings
from transferkit.cli.types import EXISTING_FILE, EXISTING_FOLDER, NAME
from transferkit.cli.workers import Workers, told, workers_options

FORMATS = ("modelpack", "oras", "docker")
"""What a folder may be pushed as."""
format_option = click.option("--format", type=click.Choice(FORMATS), help="What a folder becomes. Default: modelpack.")
folder_option = click.option("--folder", type=EXISTING_FOLDER, metavar="DIR", help="A folder of files, as a model.")
ollama_option = click.option("--ollama", is_flag=True, help="Push a second manifest, TAG-ollama, for Ollama's client.")


@click.command(cls=Command, short_help="Push a model of the cache, a folder, or files.")
@click.argument("name", type=NAME)
@click.option("--from", "source", type=NAME, metavar="NAME", help="The model of the cache. Default: the same name.")
@folder_option
@click.option(
    "--file", "files", multiple=True, type=EXISTING_FILE, metavar="PATH", help="A file of an artifact. May be repeated."
)
@format_option
@only_option
@exclude_option
@annotation_option
@ollama_option
@click.option("--artifact-type", metavar="TYPE", help="Of an artifact of files.")
@transfer_options
@click.pass_obj
def push(
    settings: Settings,
    /,
    name: str,
    source: str | None,
    folder: Path | None,
    files: tuple[Path, ...],
    artifact_type: str | None,
    annotations: tuple[tuple[str, str], ...],
    **options: Any,
) -> None:
    """Push a model of the cache, a folder, or files, and print NAME@DIGEST.

    Everything is looked for before the first byte is sent, and the tag comes last. What the registry has is not sent.
    """
    chosen = folder_choices(options)
    if sum((source is not None, folder is not None, bool(files))) > 1:
        raise click.UsageError("--from, --folder and --file are three things to push: give one of them")
    if folder is None and chosen:
        raise click.UsageError(f"--{next(iter(chosen))} goes with --folder DIR")
    if not files and artifact_type is not None:
        raise click.UsageError("--artifact-type goes with --file PATH")
    if annotations and folder is None and not files:
        raise click.UsageError("--annotation goes with --folder or --file: a model of the cache is pushed as it is")
    with Connection(**options).registry(settings, name) as registry:
        document = registry.push(
            name,
            source=source,
            folder=folder,
            files=list(files) or None,
            artifact_type=artifact_type,
            annotations=dict(annotations) or None,
            progress=settings.progress,
            **chosen,
        )
    _record(settings, "pushed", name, document)


def folder_choices(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of the options of a command those that go with a folder, where they were given."""
    given = {key: options.pop(key) for key in ("format", "only", "exclude", "ollama")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value}


@click.command(cls=Command, short_help="Copy a model from one registry to another.")
@click.argument("source", type=NAME)
@click.argument("target", type=NAME)
@click.option("--platform", metavar="OS/ARCH", default="all", help="Of an index: which one. Default: all of it.")
@click.option("--referrers", is_flag=True, help="Also what refers to it: signatures, and the like.")
@only_option
@exclude_option
@click.option("--format", type=click.Choice(FORMATS), help="What a repository of the hub becomes. Default: modelpack.")
@workers_options
@transfer_options
@click.pass_obj
def copy(settings: Settings, /, source: str, target: str, platform: str, referrers: bool, **options: Any) -> None:
    """Copy a model from one registry to another, and print TARGET@DIGEST. Nothing is stored on disk.

    SOURCE may be hf://org/model@revision, a repository of the Hugging Face hub.
    """
    from transferkit.protocol.hub_name import is_hub_name

    chosen = {key: options.pop(key) for key in ("format", "only", "exclude")}
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items() if value}
    if chosen and not is_hub_name(source):
        raise click.UsageError(f"--{next(iter(chosen))} is for a repository of the hub (hf://...)")
    workers = Workers(processes=options.pop("processes"), dask=options.pop("dask"))
    if workers:
        if is_hub_name(source):
            raise click.UsageError(f"hf:// does not go with {workers.option}")
        connection = Connection(**options)
        with connection.registry(settings, source, target) as registry:
            plan = registry.plan_copy(source, target, platform=platform, referrers=referrers)
        report = workers.run(settings, plan, to=None, cache=None, given=connection.keywords(source, target))
        Output(settings).note(told(report))
        _record(settings, "copied", target, _root_of(plan), source=source)
        return
    with Connection(**options).registry(settings, source, target) as registry:
        document = registry.copy(
            source, target, platform=platform, referrers=referrers, progress=settings.progress, **chosen
        )
    _record(settings, "copied", target, document, source=source)


def _root_of(plan: Any) -> Any:
    """Return the manifest that a plan's source names."""
    from transferkit.content.manifest import parse
    from transferkit.names import Reference

    digest = Reference.parse(plan.source).digest
    return next(document for document in map(parse, plan.documents) if document.digest == digest)


def _record(settings: Settings, /, kind: str, name: str, document: Any, **more: str) -> None:
    from transferkit.names import Reference

    pinned = f"{Reference.parse(name)}@{document.digest}"
    fields = {"name": name, "digest": document.digest, "media_type": document.media_type}
    Output(settings).record(kind, pinned, **fields, **more)
