"""The tick EMA: stream, array and twin are one number."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.ema import TickEma, tick_ema
from tests.reference import ema_twin

spans = st.one_of(st.just(1.0), st.floats(1.0, 1e5), st.just(1e9))
# Few distinct prices, so that ticks often repeat the one before.
series = st.lists(
    st.one_of(st.sampled_from([99.5, 100.0, 100.5]), st.floats(1e-6, 1e7)), min_size=1, max_size=60
)


@given(series, spans)
def test_stream_array_and_twin_agree_bit_for_bit(prices: list[float], span: float) -> None:
    stream = TickEma(prices[0], span=span)
    streamed = [stream.value, *(stream.update(price) for price in prices[1:])]
    array = tick_ema(np.array(prices), span=span).tolist()
    assert streamed == array == ema_twin.tick_ema(prices, span)
    assert stream.value == array[-1]


def test_a_long_series_agrees_too() -> None:
    rng = np.random.default_rng(7)
    prices = 30_000.0 + 0.5 * np.cumsum(rng.integers(-1, 2, 100_000))
    for span in (1.0, 2.0, 5000.0, 1e9):
        assert tick_ema(prices, span=span).tolist() == ema_twin.tick_ema(prices.tolist(), span)


def test_by_hand() -> None:
    # Span 3: alpha 1/2. 100; (100 + 110)/2 = 105; again 110: no news; (105 + 100)/2 = 102.5.
    assert tick_ema(np.array([100.0, 110.0, 110.0, 100.0]), span=3.0).tolist() == [
        100.0,
        105.0,
        105.0,
        102.5,
    ]


@given(series)
def test_span_one_is_the_last_price(prices: list[float]) -> None:
    assert tick_ema(np.array(prices), span=1.0).tolist() == prices


@given(series, spans)
def test_repeated_ticks_change_nothing(prices: list[float], span: float) -> None:
    repeated = [p for price in prices for p in (price, price, price)]
    once = [p for i, p in enumerate(prices) if i == 0 or p != prices[i - 1]]
    ema = tick_ema(np.array(repeated), span=span)
    assert ema[-1] == tick_ema(np.array(once), span=span)[-1]
    assert ema[0] == ema[1] == ema[2]


@given(series, spans)
def test_stays_among_the_prices(prices: list[float], span: float) -> None:
    ema = tick_ema(np.array(prices), span=span)
    assert ema.min() >= min(prices) * (1 - 1e-12)
    assert ema.max() <= max(prices) * (1 + 1e-12)


def test_empty() -> None:
    assert tick_ema(np.empty(0), span=5.0).shape == (0,)


@pytest.mark.parametrize("span", [0.999, 0.0, -1.0, math.nan, math.inf])
def test_refuses_a_span_below_one(span: float) -> None:
    for make in (lambda: TickEma(1.0, span=span), lambda: tick_ema(np.ones(3), span=span)):
        with pytest.raises(ValueError, match="span must be finite and >= 1"):
            make()


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_price_that_is_none(price: float) -> None:
    with pytest.raises(ValueError, match="price must be finite and > 0"):
        TickEma(price, span=5.0)
    ema = TickEma(3.0, span=5.0)
    with pytest.raises(ValueError, match="price must be finite and > 0"):
        ema.update(price)
    assert ema.value == 3.0


def test_refuses_an_array_of_another_type() -> None:
    with pytest.raises(ValueError, match="dtype"):
        tick_ema(np.ones(3, np.float32), span=5.0)
