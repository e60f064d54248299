"""``passivx doctor``: is this installation fit to run?"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import rich_click as click
from click.exceptions import Exit
from rich.table import Table

from passivx._core.types import build_info
from passivx.cli.options import json_option, workspace_option
from passivx.cli.output import console, print_json

LEAST_FREE_GB = 2.0
LEAST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its state is 'ok', 'warning' or 'problem'."""

    name: str
    state: str
    detail: str


@click.command()
@workspace_option
@json_option
def command(workspace: Path, as_json: bool) -> None:
    """Check build, processor, clock, disk and permissions; exit 1 when something is wrong.

    \b
    Example:
      passivx doctor
    """
    findings = list(_findings(workspace))
    failed = any(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table("", "check", "finding", title="passivx doctor")
        marks = {
            "ok": "[green]ok[/]",
            "warning": "[yellow]warning[/]",
            "problem": "[red]problem[/]",
        }
        for finding in findings:
            table.add_row(marks[finding.state], finding.name, finding.detail)
        console().print(table)
    if failed:
        raise Exit(1)


def _findings(workspace: Path) -> Iterator[Finding]:
    checks: list[Callable[[], Finding]] = [
        _python,
        _core,
        _dependencies,
        _processor,
        _clock,
        lambda: _disk(workspace),
        lambda: _writable(workspace),
    ]
    for check in checks:
        yield check()


def _python() -> Finding:
    ok = sys.version_info >= LEAST_PYTHON
    detail = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    )
    return Finding("python", "ok" if ok else "problem", detail)


def _core() -> Finding:
    build = build_info()
    version = metadata.version("passivx")
    if build["debug"]:
        return Finding("core", "warning", f"{version}, debug build: slow, use `make build`")
    return Finding("core", "ok", f"{version}, release build, compiler {build['compiler']}")


def _dependencies() -> Finding:
    missing = []
    for line in metadata.requires("passivx") or []:
        name = re.match(r"[\w.-]+", line)
        if name is None or "extra ==" in line or ("win32" in line and sys.platform == "win32"):
            continue
        try:
            metadata.version(name[0])
        except metadata.PackageNotFoundError:
            missing.append(name[0])
    if missing:
        return Finding("packages", "problem", f"missing: pip install {' '.join(missing)}")
    return Finding("packages", "ok", "all required packages are installed")


def _processor() -> Finding:
    cores = os.cpu_count() or 1
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return Finding("processor", "ok", f"{model}, {cores} core{'s' if cores > 1 else ''}")


def _clock() -> Finding:
    resolution = time.get_clock_info("time").resolution
    year = time.gmtime().tm_year
    if year < 2025:
        return Finding("clock", "problem", f"the system says it is {year}: set the date")
    if resolution > 0.001:
        return Finding("clock", "problem", f"resolution {resolution} s, at most 0.001 s is needed")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return Finding("clock", "ok", f"{stamp} (not compared with a venue: offline check)")


def _disk(workspace: Path) -> Finding:
    folder = workspace.resolve()
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    state = "ok" if free_gb >= LEAST_FREE_GB else "warning"
    return Finding("disk", state, f"{free_gb:.1f} GB free at {folder}")


def _writable(workspace: Path) -> Finding:
    folder = workspace.resolve()
    if not folder.is_dir():
        return Finding(
            "workspace", "problem", f"{folder} is not a folder: passivx init {workspace}"
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        return Finding("workspace", "problem", f"{folder} cannot be written: {e.strerror}")
    loose = [
        path
        for path in folder.glob("api_key_secrets/*/*.json")
        if os.name == "posix" and path.stat().st_mode & 0o077
    ]
    if loose:
        return Finding("workspace", "problem", f"others may read your keys: chmod 600 {loose[0]}")
    return Finding("workspace", "ok", f"{folder} is writable")
