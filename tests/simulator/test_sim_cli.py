"""``passivx sim`` as people start it, and its control port."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.simulator.process import sim

KEYS = [
    "exchange",
    "symbol",
    "rest",
    "ws_public",
    "ws_private",
    "ws_trade",
    "control",
    "key",
    "secret",
]


def ask(url: str, body: object = None, method: str | None = None, **headers: str):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read()


def refused(run) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        run()
    return caught.value.code, caught.value.read().decode()


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
def test_the_first_line_and_a_clean_end(exchange):
    with sim("--exchange", exchange) as process:
        line = json.loads(process.stdout.readline())
        assert sorted(line) == sorted(KEYS + ["ws_market"] * (exchange == "binance"))
        assert all(isinstance(value, str) and not value.endswith("/") for value in line.values())
        time = "/fapi/v1/time" if exchange == "binance" else "/v5/market/time"
        assert json.loads(ask(line["rest"] + time))
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == ""
    assert line["secret"] not in errors
    assert "Traceback" not in errors


def test_interrupted_it_ends_cleanly_too():
    with sim("--exchange", "bybit", "--speed", "max") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_step_by_step_with_a_ledger(tmp_path):
    ledger = tmp_path / "run.jsonl"
    with sim("--exchange", "binance", "--speed", "step", "--ledger", ledger) as process:
        line = json.loads(process.stdout.readline())
        control = line["control"]
        start = json.loads(ask(f"{control}/state"))
        assert start["position"] == 0.0
        got = json.loads(ask(f"{control}/step", {"ticks": 5}))
        assert got["ticks"] == 5
        later = json.loads(ask(f"{control}/step", {"ms": 60_000}))
        assert later["ts_ms"] - got["ts_ms"] == 60_000
        assert refused(lambda: ask(f"{control}/step", {"ticks": -1}))[0] == 400
        assert refused(lambda: ask(f"{control}/step", {"ticks": 1, "ms": 1}))[0] == 400
        rows = [json.loads(row) for row in ask(f"{control}/ledger").splitlines()]
        ask(f"{control}/fault", {"do": "acct.balance", "factor": 2})
        more = [json.loads(x) for x in ask(f"{control}/ledger?since={len(rows)}").splitlines()]
        assert [row["event"] for row in more] == ["fault", "deposit"]
        assert refused(lambda: ask(f"{control}/ledger?since=x"))[0] == 400
        ask(f"{control}/stop", {})
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert [json.loads(row)["event"] for row in ledger.read_text().splitlines()][-1] == "deposit"


def test_the_control_port_refuses_what_it_should():
    with sim("--exchange", "binance") as process:
        control = json.loads(process.stdout.readline())["control"]
        code, text = refused(lambda: ask(f"{control}/fault", {"do": "ws.rts"}))
        assert code == 400
        assert "did you mean 'ws.rst'?" in text
        assert refused(lambda: ask(f"{control}/fault", method="POST"))[0] == 400
        assert refused(lambda: ask(f"{control}/step", {"ticks": 1}))[0] == 400
        for name, value in (("Host", "evil.example"), ("Origin", "http://evil.example")):
            assert refused(lambda: ask(f"{control}/stop", {}, **{name: value}))[0] == 421  # noqa: B023
        assert refused(lambda: ask(f"{control}/nothing"))[0] == 404
        assert json.loads(ask(f"{control}/fault", method="DELETE")) == {"ids": []}


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        ([], 2, "--exchange"),
        (["--exchange", "kraken"], 2, "kraken"),
        (["--exchange", "binance", "--speed", "fast"], 2, "not a number"),
        (["--exchange", "binance", "--speed", "0"], 2, "> 0"),
        (["--exchange", "binance", "--symbol", "NOPEUSDT"], 2, "no market file of NOPEUSDT"),
        (["--exchange", "binance", "--ticks", ".", "--synthetic", "1"], 2, "exclude"),
        (["--exchange", "binance", "--faults", "bad.json"], 2, "did you mean 'ws.rst'?"),
        (["--exchange", "binance", "--faults", "bad.json"], 2, "bad.json: [0].do: "),
        (["--exchange", "binance", "--ticks", "off.csv"], 2, "price_step"),
        (["--exchange", "binance", "--ticks", "small.csv"], 2, "qty_step"),
        (["--exchange", "binance", "--ledger", "no/such/folder/x"], 1, "no/such/folder/x"),
    ],
)
def test_bad_usage_is_named(tmp_path, args, code, told):
    (tmp_path / "bad.json").write_text('[{"do": "ws.rts"}]')
    (tmp_path / "off.csv").write_text(
        "trade_id,price,qty,timestamp,is_buyer_maker\n1,100.123456,1,1700000000000,1\n2,100.1,1,1700000000001,1\n"
    )
    (tmp_path / "small.csv").write_text(
        "trade_id,price,qty,timestamp,is_buyer_maker\n1,100.1,0.0001,1700000000000,1\n2,100.1,1,1700000000001,1\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "passivx", "sim", *args, "--for", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken():
    with sim("--exchange", "binance") as process:
        port = json.loads(process.stdout.readline())["rest"].rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "passivx", "sim", "--exchange", "bybit", "--port", port],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"port {port}" in done.stderr


@pytest.mark.real_data
def test_recorded_trades_are_played(real_data):
    ticks = real_data / "binance_usdm" / "BTCUSDT-trades-2024-08-08T2354.csv.gz"
    with sim("--exchange", "binance", "--ticks", ticks, "--speed", "max") as process:
        control = json.loads(process.stdout.readline())["control"]
        deadline = time.monotonic() + 30.0
        while not json.loads(ask(f"{control}/state"))["ended"]:
            assert time.monotonic() < deadline
        rows = [json.loads(row) for row in ask(f"{control}/ledger").splitlines()]
    assert rows[-1]["event"] == "replay"
    assert rows[-1]["ticks"] == 21_313
