"""The command line as a whole: help, exit codes, start-up, interruption."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rich_click as click

from passivx.cli import COMMANDS, load_command
from tests.configs import valid


def leaves(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [leaf for sub, c in command.commands.items() for leaf in leaves(f"{name} {sub}", c)]
    return [(name, command)]


LEAVES = [leaf for name in COMMANDS for leaf in leaves(name, load_command(name))]


@pytest.mark.parametrize(("name", "command"), LEAVES, ids=[name for name, _ in LEAVES])
def test_every_command_explains_itself_with_an_example(name, command, run):
    done = run(*name.split(), "--help")
    assert done.code == 0
    assert "Example:" in done.out
    assert f"passivx {name}" in done.out
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help or parameter.name in {"seed", "method"}, parameter.name


def example_of(help_text: str) -> list[list[str]]:
    """Return the commands below "Example:", continued lines joined, as argument lists."""
    shown = help_text.split("Example:", 1)[1].split("\n\n")[0].replace("\\\n", " ")
    return [shlex.split(line) for line in shown.strip().splitlines()]


# What these need is no part of a fresh workspace: a venue, and what a bot has recorded.
ALONE = [each for each in LEAVES if each[0] not in ("run", "parity")]


@pytest.mark.parametrize(("name", "command"), ALONE, ids=[name for name, _ in ALONE])
def test_every_example_works_in_a_fresh_workspace(name, command, run, tmp_path, monkeypatch):
    assert command.help is not None
    monkeypatch.chdir(tmp_path)
    assert run("init", ".").code == 0
    rows = [f"{i},{60000 + i % 50}.0,0.01,{10**12 + i},{i % 2}" for i in range(99)]
    text = "\n".join(["trade_id,price,qty,timestamp,is_buyer_maker", *rows])
    (tmp_path / "trades.csv.gz").write_bytes(gzip.compress(text.encode()))
    examples = example_of(command.help)
    assert examples
    for program, *args in examples:
        assert program == "passivx"
        done = run(*args)
        assert done.code == 0, f"{args}: {done.err}"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_an_old_code_page_does_not_spoil_the_result(spawn, tmp_path, encoding):
    done = spawn(
        "demo", "--ticks", "2000", "--live-ticks", "0", "--out", tmp_path / "d",
        env=os.environ | {"PYTHONIOENCODING": encoding}, encoding=encoding,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout


def test_help_lists_every_command_without_importing_it(spawn):
    done = spawn("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "passivx", "--help"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    for heavy in ("numpy", "pydantic", "aiohttp", "asyncio"):
        assert f" {heavy}\n" not in loaded


def test_version(spawn):
    done = spawn("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("passivx ")


@pytest.mark.parametrize(
    "args",
    [["nonsense"], ["grid"], ["grid", "x", "--price", "-1"], ["backtest", "x", "--no-such-option"]],
)
def test_wrong_usage_exits_2(run, args):
    done = run(*args)
    assert done.code == 2
    assert done.out == ""
    assert "rror" in done.err


def test_doctor_is_content_here(run, tmp_path):
    done = run("doctor", "--workspace", tmp_path, "--json")
    assert done.code == 0, done.out
    assert done.json["ok"] is True
    assert {finding["name"] for finding in done.json["findings"]} >= {"core", "clock", "disk"}
    assert "passivx doctor" in run("doctor", "--workspace", tmp_path).out


def test_doctor_names_what_is_wrong(run, tmp_path):
    done = run("doctor", "--workspace", tmp_path / "missing")
    assert done.code == 1
    keys = tmp_path / "api_key_secrets" / "binance"
    keys.mkdir(parents=True)
    (keys / "me.json").write_text("[]")
    (keys / "me.json").chmod(0o644)
    done = run("doctor", "--workspace", tmp_path)
    assert done.code == 1
    assert "chmod 600" in done.out.replace("\n", " ")


def test_interrupt_exits_130_and_leaves_nothing_half_written(tmp_path, market_file):
    ticks = tmp_path / "many.csv"
    with ticks.open("w") as file:
        file.write("trade_id,price,qty,timestamp,is_buyer_maker\n")
        block = "".join(
            f"{{}}{i:05d},100.{i % 10},1,1700000000000,{i % 2}\n" for i in range(50_000)
        )
        for k in range(60):
            file.write(block.replace("{}", str(k + 1)))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(valid()))
    out = tmp_path / "result"
    with subprocess.Popen(
        [sys.executable, "-m", "passivx", "backtest", config, "--ticks", ticks,
         "--market", market_file, "--out", out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A test run in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        # Interrupted once it says that it works, not while Python starts.
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "Reading" in said, said + err
    assert process.returncode == 130
    assert err.strip().endswith("Interrupted.")
    assert not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "many.csv", "market.json"]


def shell(command: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run ``passivx ARGS`` as ``command`` says, in which $0 stands for it."""
    words = " ".join(map(shlex.quote, [sys.executable, "-m", "passivx", *map(str, args)]))
    command = f"set -o pipefail; {command.replace('$0', words)}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def backtest_args(tmp_path, market_file, tick_file):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(valid()))
    return ["backtest", config, "--ticks", tick_file, "--market", market_file]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_is_no_failure(backtest_args, more):
    # `true` reads nothing: every write meets a closed pipe, sooner or later.
    for reader in ("head -1", "true"):
        done = shell(f"$0 | {reader}", *backtest_args, *more)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="only Linux has a device that is always full"
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_cannot_be_written_is_a_failure_that_says_so(backtest_args, more):
    done = shell("$0 >/dev/full", *backtest_args, *more)
    assert done.returncode == 1
    assert "Error: the output cannot be written: [Errno 28]" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "</dev/null 2>&-"])
def test_messages_nobody_can_read_do_not_spoil_the_result(backtest_args, where):
    done = shell(f"$0 {where}", *backtest_args, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["engine"] == "exact"


def test_without_a_stdout_the_work_is_done(backtest_args, tmp_path):
    done = shell("$0 >&-", *backtest_args, "--json", "--out", tmp_path / "result")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result" / "summary.json").exists()
