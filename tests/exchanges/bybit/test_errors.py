"""The table of codes: what each proves, and what must be quiet after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.exchanges.base import Reaction, Verdict
from passivx.exchanges.bybit.errors import _TABLE, judge, react
from tests.exchanges import classification


@pytest.mark.real_data
def test_every_code_is_classified_as_written(shared: Path):
    for row in json.loads((shared / "vectors" / "error_reactions.json").read_text())["bybit"]:
        code, action = row["code"], row["action"]
        verdict, reaction = react(200, code, row["name"])
        if code == 0:
            assert (verdict, reaction) == (Verdict.OK, Reaction.NONE)
            continue
        wanted = classification.wanted(action)
        assert reaction is wanted, row
        if "UNKNOWN" in action or reaction is Reaction.LOOK_UP:
            assert verdict is Verdict.UNKNOWN, row
        elif action.startswith("NOOP"):
            assert verdict is Verdict.OK, row
        elif reaction is not Reaction.BACK_OFF and reaction is not Reaction.RECREATE:
            assert verdict is Verdict.REJECTED, row


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 418, 429, 500, 502, 503])
def test_a_status_alone_proves_nothing(status):
    verdict, reaction = react(status, None, "")
    assert verdict is Verdict.UNKNOWN
    wanted = {401: Reaction.HALT, 403: Reaction.BACK_OFF, 429: Reaction.BACK_OFF}
    assert reaction is wanted.get(status, Reaction.LOOK_UP)


@given(st.integers(), st.integers(100, 599), st.text(max_size=40))
def test_only_codes_of_the_table_prove_anything(code, status, text):
    verdict, _ = react(status, code, text)
    if verdict is not Verdict.UNKNOWN:
        assert code in _TABLE


def test_too_often_is_about_one_kind_of_message_until_its_reset():
    found = judge(200, 10006, "Too many visits!", window="create", until_reset_s=0.75)
    assert (found.verdict, found.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
    assert (found.retry_after_s, found.window, found.spare_urgent) == (0.75, "create", False)


@pytest.mark.parametrize("code", [10018, 10403, 20003])
def test_too_often_for_the_address_or_session_is_about_everything(code):
    found = judge(200, code, "", window="create", until_reset_s=0.75)
    # Every answer has a reset stamp; here it is of something else.
    assert (found.retry_after_s, found.window, found.spare_urgent) == (0.0, "", False)


@pytest.mark.parametrize("code", [429, 10429])
def test_under_load_urgent_messages_may_go(code):
    found = judge(200, code, "", window="create")
    assert (found.verdict, found.window, found.spare_urgent) == (Verdict.UNKNOWN, "", True)


@pytest.mark.parametrize("code", [110066, 110079])
def test_one_order_holds_up_its_kind_alone(code):
    found = judge(200, code, "", window="amend")
    assert (found.window, found.spare_urgent) == ("amend", True)


def test_what_the_answer_itself_asks_for_goes_first():
    assert judge(200, 10006, "", window="w", retry_after_s=3.0, until_reset_s=1).retry_after_s == 3


def test_10003_on_the_trade_socket_may_mean_too_many_sessions():
    assert react(200, 10003, "")[1] is Reaction.HALT
    found = judge(200, 10003, "", window="create", on_trade_socket=True)
    assert (found.reaction, found.window) == (Reaction.BACK_OFF, "create")


def test_a_signed_text_is_not_repeated():
    found = judge(200, 10004, "error sign! origin_string[17KEY5000{\n'a': 1}]", window="")
    assert found.text == "error sign! "
