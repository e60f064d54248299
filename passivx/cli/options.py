"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from passivx.workspace import ENVIRONMENT_VARIABLE

__all__ = ["json_option", "workspace_option"]

workspace_option = click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=ENVIRONMENT_VARIABLE,
    show_envvar=True,
    help="Folder that bare config names are looked up in; default: the current one.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else."
)
