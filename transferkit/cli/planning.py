"""The command plan: what a pull or a push would move, before it moves anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from transferkit.cli.connecting import (
    Connection,
    annotation_option,
    connection_options,
    exclude_option,
    only_option,
    platform_option,
    reading_options,
)
from transferkit.cli.output import Output, plural
from transferkit.cli.program import Group
from transferkit.cli.pushing import folder_choices, format_option, ollama_option
from transferkit.cli.settings import Settings
from transferkit.cli.types import EXISTING_FOLDER, NAME


@click.group(cls=Group)
def plan() -> None:
    """Tell what a pull or a push would move."""


@plan.command("pull")
@click.argument("name", type=NAME)
@platform_option
@reading_options
@click.pass_obj
def plan_pull(settings: Settings, /, name: str, platform: str | None, **options: Any) -> None:
    """Tell what a pull into the cache would fetch, for the requests of manifests alone.

    Fails as the pull would where there is no room for it.
    """
    from transferkit.errors import OutOfSpaceError
    from transferkit.report import human_bytes

    with Connection(**options).registry(settings, name) as registry:
        found = registry.plan(name, platform=platform)
        root = registry.cache.root
    line = f"{plural(found.blobs, 'blob')}, {found.present} here; {human_bytes(found.bytes)} to fetch"
    room = f"{human_bytes(found.needed)} of disk needed, {human_bytes(found.free)} free"
    counts = {key: getattr(found, key) for key in ("blobs", "present", "bytes", "needed", "free", "fits")}
    Output(settings).record("pull-plan", f"{line}; {room}", name=name, **counts)
    if not found.fits:
        raise OutOfSpaceError(f"no room for {name} in {root}: {room}; transferkit gc may free some")


@plan.command("push")
@click.argument("name", type=NAME)
@click.option("--folder", type=EXISTING_FOLDER, required=True, metavar="DIR", help="The folder of files to push.")
@format_option
@only_option
@exclude_option
@annotation_option
@ollama_option
@connection_options
@click.pass_obj
def plan_push(
    settings: Settings, /, name: str, folder: Path, annotations: tuple[tuple[str, str], ...], **options: Any
) -> None:
    """Tell what a push of a folder would send. Its files are hashed, and remembered."""
    from transferkit.report import human_bytes

    chosen, output = folder_choices(options), Output(settings)
    with Connection(**options).registry(settings, name) as registry:
        found = registry.plan_push(
            name, folder=folder, annotations=dict(annotations) or None, progress=settings.progress, **chosen
        )
    blobs = f"{found.present} of {plural(found.blobs, 'blob')} there"
    line = f"{plural(len(found.files), 'file')}; {blobs}; {human_bytes(found.bytes)} to send"
    counts = {key: getattr(found, key) for key in ("blobs", "present", "bytes")}
    output.record("push-plan", line, name=name, files=list(found.files), limits=list(found.limits), **counts)
    for sentence in found.limits:
        output.note(f"warning: {sentence}")
