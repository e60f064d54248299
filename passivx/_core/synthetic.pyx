"""The arithmetic of the synthetic market; the model is explained in passivx.data.synthetic.

Only + - * /, sqrt and floor are used: IEEE 754 fixes every bit of those, while exp, log and pow
differ between C libraries. Tails therefore come from roots, u ** (-1/2) and its like.
"""

import numpy as np

from libc.math cimport floor, sqrt
from libc.stdint cimport int64_t, uint64_t

from passivx._core.types cimport Step


cdef struct Params:            # SYNTHETIC_PARAMS_DTYPE: a MarketProfile as the kernel takes it
    Step price_step
    Step qty_step
    double floor_steps         # value and mid stay within these two; price steps
    double ceiling_steps
    double gap_ms              # mean time between orders
    double pace_pull           # share of the way back to 1, an order
    double pace_noise
    double volatility_pull
    double volatility_noise
    double news                # probability that an order brings news
    double news_move           # standard deviation of the relative move it makes
    double jump                # probability that the news is a jump
    double jump_size           # least relative size of one
    double flip                # probability that an order takes the other side
    double reversion           # share of mid's distance to value taken back, an order
    double impact              # share of the distance a sweep walked that mid keeps
    double spread              # tail scale beyond the one step there always is; price steps
    double sweep               # tail scale beyond the one print there always is
    double walk                # probability that a sweep's next print is at a further level
    double level_gap           # tail scale beyond the one step there always is; price steps
    double lots                # tail scale of quantities, quantity steps


cdef struct State:             # SYNTHETIC_STATE_DTYPE: all that the next print depends on
    double value               # price steps, not whole
    double mid                 # price steps, not whole
    double bid                 # price steps, whole
    double ask
    double side                # taker's: +1 buys, -1 sells
    double pace                # factor on the time between orders, mean 1
    double volatility          # factor on the variance of news, mean 1
    double walked              # by the present sweep, price steps
    double fraction_ms         # of the clock, [0, 1)
    int64_t ts_ms
    int64_t left               # prints the present sweep still brings
    int64_t trade_id           # of the next print


cdef struct Print:             # PRINT_DTYPE
    int64_t trade_id
    double price               # quote, on the price grid
    double qty                 # > 0, on the quantity grid
    int64_t ts_ms
    int64_t buyer_maker        # 1: the taker sold, at or below the bid
    double bid                 # the quotes this print's order met
    double ask


SYNTHETIC_PARAMS_DTYPE = np.dtype([
    (f"{step}_step", [("units", "<f8"), ("scale", "<f8")]) for step in ("price", "qty")
] + [
    (name, "<f8") for name in (
        "floor_steps", "ceiling_steps", "gap_ms", "pace_pull", "pace_noise", "volatility_pull",
        "volatility_noise", "news", "news_move", "jump", "jump_size", "flip", "reversion",
        "impact", "spread", "sweep", "walk", "level_gap", "lots",
    )
])
SYNTHETIC_STATE_DTYPE = np.dtype([
    (name, "<f8") for name in (
        "value", "mid", "bid", "ask", "side", "pace", "volatility", "walked", "fraction_ms",
    )
] + [(name, "<i8") for name in ("ts_ms", "left", "trade_id")])
PRINT_DTYPE = np.dtype([
    ("trade_id", "<i8"), ("price", "<f8"), ("qty", "<f8"), ("ts_ms", "<i8"),
    ("buyer_maker", "<i8"), ("bid", "<f8"), ("ask", "<f8"),
])

for _size, _dtype in (
    (sizeof(Params), SYNTHETIC_PARAMS_DTYPE), (sizeof(State), SYNTHETIC_STATE_DTYPE),
    (sizeof(Print), PRINT_DTYPE),
):
    if _size != _dtype.itemsize:
        raise ImportError(f"passivx._core: a struct and its dtype disagree: {_dtype}")

# Random words a print takes. It takes all of them whether it needs them or not: then print i always
# reads words i*DRAWS onward, and the stream does not depend on how it is cut into pieces.
DRAWS = 10
cdef enum:
    # The first print of an order reads
    GAP, SIDE, PACE, VOLATILITY, NEWS, MOVE_A, MOVE_B, SPREAD, LENGTH, QTY
    # and the further prints of a sweep
    WALK = 0
    LEVEL = 1
    # (and QTY).

cdef double TAIL_CAP = 255.0       # one draw in 65,536 is beyond
cdef double QTY_CAP = 3500.0       # one in 53,000
cdef double MOST_MOVE = 0.2        # no single news item moves the price further
cdef double ROOT_6 = 2.449489742783178
cdef double ROOT_12 = 3.4641016151377544


cdef inline double uniform(uint64_t word) noexcept nogil:
    # In (0, 1]: never 0, so that roots of it can be divided by.
    return <double>((word >> 11) + 1) * (1.0 / 9007199254740992.0)


cdef inline double tail(double u) noexcept nogil:
    # P(tail > x) = (1 + x) ** -2: few are large, some are very large.
    cdef double x = 1.0 / sqrt(u) - 1.0
    return x if x < TAIL_CAP else TAIL_CAP


cdef inline double wander(double level, double pull, double noise, double u) noexcept nogil:
    # A positive factor with mean 1 and memory 1/pull; `noise` is bounded so that it cannot reach 0.
    return level + pull * (1.0 - level) + noise * level * ((u - 0.5) * ROOT_12)


cdef inline double within(double x, double low, double high) noexcept nogil:
    return low if x < low else high if x > high else x


cdef void next_order(State* s, const Params* p, const uint64_t* words) noexcept nogil:
    cdef double root, whole, move, spread
    # The time until it comes: Lomax, P(gap > x) = (1 + x/3) ** -4 around its present mean.
    root = sqrt(uniform(words[GAP]))
    s.fraction_ms += p.gap_ms * s.pace * (3.0 * (1.0 / sqrt(root) - 1.0))
    whole = floor(s.fraction_ms)
    s.ts_ms += <int64_t>whole
    s.fraction_ms -= whole
    s.pace = wander(s.pace, p.pace_pull, p.pace_noise, uniform(words[PACE]))
    s.volatility = wander(
        s.volatility, p.volatility_pull, p.volatility_noise, uniform(words[VOLATILITY]))

    # What the last sweep did to the mid, and what the mid forgets.
    s.mid += s.side * s.walked * p.impact
    s.mid += (s.value - s.mid) * p.reversion
    s.walked = 0.0
    if uniform(words[SIDE]) <= p.flip:
        s.side = -s.side

    # News moves value and mid alike and stays.
    root = uniform(words[NEWS])
    move = 0.0
    if root <= p.jump:
        move = p.jump_size / sqrt(sqrt(uniform(words[MOVE_B])))
        if uniform(words[MOVE_A]) <= 0.5:
            move = -move
    elif root <= p.news:
        move = (uniform(words[MOVE_A]) + uniform(words[MOVE_B]) - 1.0) * ROOT_6
        move = move * p.news_move * sqrt(s.volatility)
    move = 1.0 + within(move, -MOST_MOVE, MOST_MOVE)
    s.value = within(s.value * move, p.floor_steps, p.ceiling_steps)
    s.mid = within(s.mid * move, p.floor_steps, p.ceiling_steps)

    # Quotes stand until the mid leaves them: most orders meet the quotes of the one before.
    if s.mid < s.bid or s.mid > s.ask:
        spread = 1.0 + floor(p.spread * tail(uniform(words[SPREAD])))
        s.bid = floor(s.mid - 0.5 * (spread - 1.0))
        if s.bid < 1.0:
            s.bid = 1.0
        s.ask = s.bid + spread
    s.left = 1 + <int64_t>floor(p.sweep * tail(uniform(words[LENGTH])))


cdef void generate(
    Print[::1] out, State* s, const Params* p, const uint64_t[:, ::1] words
) noexcept nogil:
    cdef Py_ssize_t i
    cdef double steps, root, x
    cdef const uint64_t* w
    for i in range(out.shape[0]):
        w = &words[i, 0]
        if s.left == 0:
            next_order(s, p, w)
        elif uniform(w[WALK]) <= p.walk:
            s.walked += 1.0 + floor(p.level_gap * tail(uniform(w[LEVEL])))
        s.left -= 1
        if s.side > 0.0:
            steps = s.ask + s.walked
        else:
            steps = s.bid - s.walked
            if steps < 1.0:
                steps = 1.0
        # P(x > y) = (1 + y) ** (-4/3), which is how recorded quantities fall off.
        root = sqrt(uniform(w[QTY]))
        x = 1.0 / (root * sqrt(root)) - 1.0
        if x > QTY_CAP:
            x = QTY_CAP
        out[i].trade_id = s.trade_id
        out[i].price = steps * p.price_step.units / p.price_step.scale
        out[i].qty = (1.0 + floor(p.lots * x)) * p.qty_step.units / p.qty_step.scale
        out[i].ts_ms = s.ts_ms
        out[i].buyer_maker = s.side < 0.0
        out[i].bid = s.bid * p.price_step.units / p.price_step.scale
        out[i].ask = s.ask * p.price_step.units / p.price_step.scale
        s.trade_id += 1


def generate_prints(Print[::1] out, State[::1] state, const Params[::1] params,
                    const uint64_t[:, ::1] words):
    """Fill ``out`` with the next prints and move ``state`` on.

    Parameters
    ----------
    out : ndarray of PRINT_DTYPE, shape (n,)
        Overwritten.
    state : ndarray of SYNTHETIC_STATE_DTYPE, shape (1,)
        Read and overwritten.
    params : ndarray of SYNTHETIC_PARAMS_DTYPE, shape (1,)
        As ``passivx.data.synthetic`` derives it from a MarketProfile, which checks the ranges.
    words : ndarray of uint64, shape (n, DRAWS)
        Uniform random 64-bit words.

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    if state.shape[0] != 1 or params.shape[0] != 1:
        raise ValueError("state and params must have shape (1,)")
    if words.shape[0] != out.shape[0] or words.shape[1] != DRAWS:
        raise ValueError(f"words must have shape ({out.shape[0]}, {DRAWS})")
    if out.shape[0] == 0:
        return
    with nogil:
        generate(out, &state[0], &params[0], words)
