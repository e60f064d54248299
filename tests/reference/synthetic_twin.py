"""The synthetic market in slow, clear Python: one order at a time, one random word at a time.

Written from the description in passivx.data.synthetic. Only + - * /, square roots and floors, in
the order the model is explained, so that every bit must agree with the kernel.
"""

import math

import numpy as np


def uniform(word):
    return float((word >> 11) + 1) / 2.0**53


def tail(u):
    return min(1.0 / math.sqrt(u) - 1.0, 255.0)


def quarter_root(u):
    return math.sqrt(math.sqrt(u))


def wander(level, pull, noise, u):
    return level + pull * (1.0 - level) + noise * level * ((u - 0.5) * math.sqrt(12.0))


def clamp(x, low, high):
    return min(max(x, low), high)


def prints(seed, n, profile):
    """Return the first n prints as (trade_id, price, qty, ts_ms, buyer_maker, bid, ask) tuples."""
    record = profile._record()[0]
    p = {k: float(record[k]) for k in record.dtype.names if k not in ("price_step", "qty_step")}
    price_units, price_scale = (float(x) for x in record["price_step"])
    qty_units, qty_scale = (float(x) for x in record["qty_step"])
    source = np.random.PCG64(seed)

    def price_of(steps):
        return steps * price_units / price_scale

    value = mid = float(round(profile.start_price * price_scale / price_units))
    bid = ask = 0.0
    side = pace = volatility = 1.0
    walked = 0.0
    clock_ms, fraction_ms = profile.start_ts_ms, 0.0
    out = []
    while len(out) < n:
        # A new order: ten words.
        u_gap, u_side, u_pace, u_vol, u_news, u_a, u_b, u_spread, u_length, u_qty = (
            uniform(source.random_raw()) for _ in range(10)
        )
        fraction_ms += p["gap_ms"] * pace * (3.0 * (1.0 / quarter_root(u_gap) - 1.0))
        clock_ms += math.floor(fraction_ms)
        fraction_ms -= math.floor(fraction_ms)
        pace = wander(pace, p["pace_pull"], p["pace_noise"], u_pace)
        volatility = wander(volatility, p["volatility_pull"], p["volatility_noise"], u_vol)

        mid += side * walked * p["impact"]
        mid += (value - mid) * p["reversion"]
        if u_side <= p["flip"]:
            side = -side

        if u_news <= p["jump"]:
            size = p["jump_size"] / quarter_root(u_b)
            move = -size if u_a <= 0.5 else size
        elif u_news <= p["news"]:
            move = (u_a + u_b - 1.0) * math.sqrt(6.0) * p["news_move"] * math.sqrt(volatility)
        else:
            move = 0.0
        factor = 1.0 + clamp(move, -0.2, 0.2)
        value = clamp(value * factor, p["floor_steps"], p["ceiling_steps"])
        mid = clamp(mid * factor, p["floor_steps"], p["ceiling_steps"])

        if not bid <= mid <= ask:
            spread = 1.0 + math.floor(p["spread"] * tail(u_spread))
            bid = max(1.0, float(math.floor(mid - 0.5 * (spread - 1.0))))
            ask = bid + spread

        walked = 0.0
        length = 1 + math.floor(p["sweep"] * tail(u_length))
        for k in range(length):
            if k > 0:
                words = source.random_raw(10).tolist()
                u_qty = uniform(words[9])
                if uniform(words[0]) <= p["walk"]:
                    walked += 1.0 + math.floor(p["level_gap"] * tail(uniform(words[1])))
            steps = ask + walked if side > 0.0 else max(1.0, bid - walked)
            lots = 1.0 + math.floor(
                p["lots"] * min(1.0 / (math.sqrt(u_qty) * quarter_root(u_qty)) - 1.0, 3500.0)
            )
            out.append(
                (
                    len(out) + 1,
                    price_of(steps),
                    lots * qty_units / qty_scale,
                    clock_ms,
                    int(side < 0.0),
                    price_of(bid),
                    price_of(ask),
                )
            )
            if len(out) == n:
                break
    return out
