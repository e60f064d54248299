"""The table of codes against the classification it was made from, and the texts of a 503."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.exchanges.base import Reaction, Verdict
from passivx.exchanges.binance.errors import _TABLE, ORDERS_1M, ORDERS_10S, judge, react
from tests.exchanges import classification
from tests.exchanges.binance.venue import NOW_MS

# Those that are told in a sentence.
SENTENCES = {
    -5026: Reaction.DROP,
    -5043: Reaction.BACK_OFF,
    -1106: Reaction.DROP,
    -5047: Reaction.DROP,
}


def at(code, status=400, text="", retry_after_s=0.0):
    return judge(status, code, text, retry_after_s=retry_after_s, ts_ms=NOW_MS)


@pytest.fixture(scope="module")
def listed(shared: Path) -> dict:
    return json.loads((shared / "vectors" / "error_reactions.json").read_text())


@pytest.mark.real_data
class TestClassification:
    def test_every_code_is_classified_as_written(self, listed):
        for row in listed["binance"]:
            code, action = row["code"], row["action"]
            wanted = SENTENCES.get(code)
            if wanted is None:
                wanted = classification.wanted(action)
            verdict, reaction = react(400, code, row["name"])
            assert reaction is wanted, row
            if action.startswith("UNKNOWN"):
                assert verdict is Verdict.UNKNOWN, row
            elif action.startswith("NOOP"):
                assert verdict is Verdict.OK, row
            else:
                assert verdict is Verdict.REJECTED, row

    def test_every_status_is_classified_as_written(self, listed):
        for status, action in listed["binance_http"].items():
            number, _, text = status.partition(" ")
            code = int(text) if text.startswith("-") else None
            verdict, reaction = react(int(number), code, "" if code else text)
            wanted = Reaction.LOOK_UP if action.startswith("UNKNOWN") else Reaction.BACK_OFF
            assert reaction is wanted, status
            if "certain failure" in action:
                assert verdict is Verdict.REJECTED, status
            else:
                assert verdict is Verdict.UNKNOWN, status


class TestReact:
    @pytest.mark.parametrize("code", [-4999, -1, 1, 0, 400])
    @pytest.mark.parametrize("status", [200, 400, 500, 503])
    def test_what_is_not_listed_is_unknown(self, code, status):
        assert react(status, code, "whatever") == (Verdict.UNKNOWN, Reaction.LOOK_UP)

    def test_code_200_is_success_with_a_good_status_only(self):
        assert react(200, 200, "success") == (Verdict.OK, Reaction.NONE)
        assert react(400, 200, "success")[0] is Verdict.UNKNOWN

    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            ("Service Unavailable.", Verdict.REJECTED),
            ("Service Unavailable", Verdict.REJECTED),
            ("Unknown error, please check your request or try again later.", Verdict.UNKNOWN),
            ("<html><title>503 Service Unavailable</title></html>", Verdict.UNKNOWN),
            ("", Verdict.UNKNOWN),
        ],
    )
    def test_a_503_is_judged_by_its_text(self, text, verdict):
        assert react(503, None, text)[0] is verdict

    @given(st.integers(100, 599), st.none() | st.integers(-9999, 9999), st.text())
    def test_only_listed_codes_are_rejections(self, status, code, text):
        verdict, reaction = react(status, code, text)
        if verdict is Verdict.REJECTED:
            assert _TABLE.get(code, (None,))[0] is Verdict.REJECTED or status == 503
        if verdict is Verdict.OK:
            assert 200 <= status < 300 or reaction is Reaction.ALREADY_SO


class TestJudge:
    def test_a_weight_refusal_waits_for_the_next_minute(self):
        found = at(-1003, 429)
        assert (found.window, found.ban, found.spare_urgent) == ("", False, False)
        assert found.retry_after_s == pytest.approx(60 - 12.345)

    def test_what_the_answer_asks_for_comes_first(self):
        assert at(-1003, 429, retry_after_s=7.0).retry_after_s == 7.0

    def test_a_ban_ends_when_the_text_says(self):
        text = f"Way too many requests; IP(1.2.3.4) banned until {NOW_MS + 90_000}. Please use ws"
        # The order socket and a 429 tell of it in the same words.
        assert at(-1003, 429, text).ban
        found = at(-1003, 418, text)
        assert found.ban
        assert found.retry_after_s == pytest.approx(90.0)

    def test_a_ban_far_away_is_no_longer_than_the_longest(self):
        assert at(-1003, 418, "banned until 9999999999999").retry_after_s == 3 * 86400.0

    @pytest.mark.parametrize("status", [403, 418])
    def test_a_ban_without_words_is_one(self, status):
        found = at(None, status)
        assert found.ban
        assert found.verdict is Verdict.UNKNOWN

    def test_too_many_orders_stop_orders_alone(self):
        ten = at(-1015, 429, "Too many new orders; current limit is 300 orders per 10 SECOND.")
        assert ten.window == ORDERS_10S
        assert ten.retry_after_s == pytest.approx(10 - 2.345)
        minute = at(-1015, 429, "Too many new orders; current limit is 1200 orders per MINUTE.")
        assert minute.window == ORDERS_1M
        assert minute.retry_after_s == pytest.approx(60 - 12.345)

    @pytest.mark.parametrize("code", [-1008, -1001])
    def test_an_overloaded_venue_still_takes_cancels(self, code):
        assert at(code, 503).spare_urgent

    @pytest.mark.parametrize("code", [-4131, -5043])
    def test_one_order_stops_nothing_but_orders(self, code):
        found = at(code)
        assert (found.window, found.spare_urgent, found.ban) == (ORDERS_10S, True, False)
