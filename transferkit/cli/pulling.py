"""The commands that bring a model here: pull and resolve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from transferkit.cli.connecting import Connection, exclude_option, fetching_options, only_option, platform_option
from transferkit.cli.output import Output, plural
from transferkit.cli.program import Command
from transferkit.cli.settings import FOLDER, Settings
from transferkit.cli.types import NAME
from transferkit.cli.workers import Workers, told, workers_options

FORMATS = ("modelpack", "oras", "docker", "kitops", "ollama", "image")
"""What a manifest may be read as."""
LINKS = ("auto", "reflink", "hard", "copy", "none")
_FOR_FOLDERS = ("only", "exclude", "format", "link", "overwrite")


@click.command(cls=Command, short_help="Pull a model into the cache, or its files into a folder.")
@click.argument("name", type=NAME)
@click.option("--to", type=FOLDER, metavar="DIR", help="Write the files of the model there, by their names.")
@only_option
@exclude_option
@platform_option
@click.option("--format", type=click.Choice(FORMATS), help="What to read the manifest as; else it is found out.")
@click.option("--link", type=click.Choice(LINKS), help="How files come from the cache; none: not through it.")
@click.option("--overwrite", is_flag=True, help="Replace files that somebody has changed.")
@click.option("--foreign", is_flag=True, help="Fetch layers elsewhere, where the manifest says so.")
@workers_options
@fetching_options
@click.pass_obj
def pull(
    settings: Settings, /, name: str, to: Path | None, platform: str | None, foreign: bool, **options: Any
) -> None:
    """Pull a model into the cache, or its files into a folder.

    Prints NAME@DIGEST, which pins what was pulled; with --to, the folder. What an interrupted pull has left is
    continued. NAME is host/namespace/model:tag, and its parts have defaults: smollm:135m is a model of Ollama's
    library. hf://org/model@revision is a repository of the Hugging Face hub, and needs --to.
    """
    from transferkit.protocol.hub_name import is_hub_name
    from transferkit.report import human_bytes

    output, folder = Output(settings), {key: options.pop(key) for key in _FOR_FOLDERS}
    folder = {key: list(value) if isinstance(value, tuple) else value for key, value in folder.items() if value}
    if to is None and folder:
        raise click.UsageError(f"--{next(iter(folder))} is for the files of a folder: add --to DIR")
    if is_hub_name(name) and (to is None or platform or foreign or "format" in folder):
        raise click.UsageError("a pull from the hub needs --to DIR, and takes no --platform, --format or --foreign")
    workers = Workers(processes=options.pop("processes"), dask=options.pop("dask"))
    if workers:
        chosen = {key: folder.pop(key) for key in ("only", "exclude") if key in folder}
        if folder or foreign or is_hub_name(name):
            what = next((f"--{key}" for key in folder), "--foreign" if foreign else "hf://")
            raise click.UsageError(f"{what} does not go with {workers.option}")
        _pull_together(settings, workers, Connection(**options), name, to, platform=platform, **chosen)
        return
    call: dict[str, Any] = {"progress": settings.progress}
    if not is_hub_name(name):
        call |= {"platform": platform, "foreign": foreign}
    with Connection(**options).registry(settings, name) as registry:
        if to is None:
            document = registry.pull(name, **call)
            pinned = _pinned(name, document.digest)
            output.record("pulled", pinned, name=name, digest=document.digest, media_type=document.media_type)
            return
        report = registry.pull(name, to=to, **folder, **call)
    fields = {key: list(getattr(report, key)) for key in ("written", "kept", "left")}
    output.record(
        "folder",
        report.folder,
        name=name,
        folder=report.folder,
        digest=report.digest,
        format=report.format,
        bytes=report.bytes,
        seconds=round(report.seconds, 3),
        **fields,
    )
    moved = f"{human_bytes(report.bytes)} in {report.seconds:.1f} s"
    output.note(f"{plural(len(report.written), 'file')} written, {len(report.kept)} kept; {moved}")
    if report.left:
        output.note(
            f"left from an older version: {', '.join(report.left[:5])}{', ...' if len(report.left) > 5 else ''}"
        )


def _pull_together(
    settings: Settings, workers: Workers, connection: Connection, name: str, to: Path | None, **plan_of: Any
) -> None:
    """Pull by several workers; into the cache, or straight into a folder. The rest are keywords of ``plan_pull``."""
    from transferkit.content.graph import ALL
    from transferkit.registry.plans.checks import source_of
    from transferkit.registry.plans.manifests import graph_of

    output = Output(settings)
    with connection.registry(settings, name) as registry:
        plan = registry.plan_pull(name, **plan_of)
    where = {"to": to, "cache": settings.cache if to is None else None}
    report = workers.run(settings, plan, given=connection.keywords(name), **where)
    document = graph_of(plan, source_of(plan))[0].chosen(plan.platform or ALL)
    moved = {"bytes": report.bytes, "seconds": round(report.seconds, 3)}
    if to is None:
        pinned = _pinned(name, document.digest)
        output.record("pulled", pinned, name=name, digest=document.digest, media_type=document.media_type)
    else:
        output.record("folder", str(to), name=name, folder=str(to), digest=document.digest, **moved)
    output.note(told(report))


@click.command(cls=Command, short_help="Print the path of a folder with the files of a model.")
@click.argument("name", type=NAME)
@platform_option
@fetching_options
@click.pass_obj
def resolve(settings: Settings, /, name: str, platform: str | None, **options: Any) -> None:
    """Print the path of a folder with the files of a model, for programs that want one.

    The folder is in the cache, complete, read-only, and the same for ever; it is made where it is not there. Nothing
    else is printed: MODEL=$(transferkit resolve team/model:v1).
    """
    with Connection(**options).registry(settings, name) as registry:
        path = registry.snapshot(name, platform=platform, progress=settings.progress)
    Output(settings).record("path", str(path), name=name, path=str(path))


def _pinned(name: str, digest: str) -> str:
    """Return what names a model and no other one for ever."""
    from transferkit.content.digest import Digest
    from transferkit.names import Reference

    reference = Reference.parse(name)
    return str(replace(reference, digest=Digest(digest), has_tag=not reference.is_pinned))
