"""``passivx init``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from passivx.cli.options import json_option
from passivx.cli.output import print_json
from passivx.workspace import create_workspace

__all__ = ["command"]


@click.command("init")
@click.argument(
    "folder",
    metavar="[DIR]",
    default=".",
    envvar="PASSIVX_WORKSPACE",
    type=click.Path(path_type=Path),
)
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Make a workspace in DIR (default: PASSIVX_WORKSPACE, else here) with commented examples.

    Nothing that exists is overwritten.

    \b
    Example:
      passivx init trading
      passivx config explain bybit/default --workspace trading
    """
    made = list(create_workspace(folder))
    if as_json:
        files = {"written": True, "kept": False}
        print_json(
            {"workspace": str(folder)}
            | {word: [str(p) for p, fresh in made if fresh is want] for word, want in files.items()}
        )
        return
    for path, fresh in made:
        click.echo(f"{'wrote' if fresh else 'kept '} {path}")
    click.echo(f"Workspace ready in {folder.resolve()}")
