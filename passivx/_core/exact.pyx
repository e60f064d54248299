"""The ``exact`` engine, method ``scan``: a plain loop over prints between venue and bot.

It owns no rule: what fills is ``matching``'s, what is wanted ``grid``'s, what is sent ``flow``'s.
What is here is time: prints, messages on their way, funding, requotes and whole hours are merged in
the order that docs/backtest.md gives (*One millisecond*), and everything that happened is recorded.
"""

from functools import partial

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, ceil, fabs, nextafter, pow
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from passivx._core.breaks cimport (
    Instruction, Trade, Watch, check_program, note_record, watch_start, watch_trade,
)
from passivx._core.ema cimport ema_step
from passivx._core.flow cimport (
    Flow, FlowRules, Message, What, flow_account, flow_arrived, flow_filled, flow_free, flow_gone,
    flow_placed, flow_plan, flow_print, flow_refused, flow_release, flow_requote, flow_start,
    stop_trigger,
)
from passivx._core.matching cimport (
    Answer, Execution, Print, Resting, Touch, Venue, book_print, book_start, cancel, drop_order,
    fill_trigger, next_fill, open_pnl, place, settle_funding, take_print, touch_of,
)
from passivx._core.memory cimport with_room
from passivx._core.types cimport Equity, Fill, Funding, Kind, Market, Strategy, Tier

from passivx._core.flow import FLOW_RULES_DTYPE as _FLOW_RULES_DTYPE
from passivx._core.types import EQUITY_DTYPE as _EQUITY_DTYPE
from passivx._core.types import FILL_DTYPE as _FILL_DTYPE
from passivx._core.types import MARKET_DTYPE as _MARKET_DTYPE
from passivx._core.types import STRATEGY_DTYPE as _STRATEGY_DTYPE

cdef extern from *:
    int PASSIVX_DEBUG


cdef enum:
    # Messages on their way: two groups of at most 50, and market stops. A new one of those needs a
    # new position, whose entry takes a latency to arrive itself: there are never more than a few.
    ROOM = 256
    MS_PER_HOUR = 3_600_000
    MS_PER_DAY = 86_400_000


cdef struct Settings:          # EXACT_DTYPE: one run, besides its prints, tiers and funding
    Strategy strategy
    Market market
    FlowRules flow
    double starting_balance
    double ema_span
    double latency_ms
    double cancel_latency_ms
    double queue_share
    double venue_leverage
    double liquidation_fee
    int64_t cross_mode
    int64_t fill_mode          # matching.FillMode


cdef struct Limits:            # LIMITS_DTYPE: figures that end a run once they are worse than this
    double max_drawdown        # inf = no limit
    double min_closest_liq     # -inf = no limit, as in min_adg
    double max_hours_between_fills   # inf
    double max_loss            # share of the starting balance; inf
    double min_adg             # average daily gain, a factor
    double min_adg_from        # share of the run's time from which that counts, 0 to 1


cdef enum Limit:               # which: the index of its field
    NO_LIMIT = -1
    MAX_DRAWDOWN = 0
    MIN_CLOSEST_LIQ = 1
    MAX_HOURS_BETWEEN_FILLS = 2
    MAX_LOSS = 3
    MIN_ADG = 4


cpdef enum Outcome:            # how a run ended
    RUNNING = 0
    END = 1
    LIQUIDATION = 2
    BREAK = 3
    OUT_OF_MEMORY = 4
    BROKEN_IDENTITY = 5        # debug builds: the wallet is not what the records say
    LIMIT = 6


cdef struct Mail:              # messages of one latency: they arrive in the order they were sent
    Message[ROOM] message
    int64_t[ROOM] arrives_ms
    int64_t[ROOM] number       # of all messages
    int64_t first
    int64_t n


cdef struct Run:
    const double* price
    const double* qty
    const int64_t* ts_ms
    const uint8_t* buyer_maker
    Py_ssize_t n
    Py_ssize_t at              # prints played
    Py_ssize_t booked          # prints the venue's book has seen
    const Funding* funding
    Py_ssize_t n_funding
    Py_ssize_t at_funding
    Venue* venue
    Flow* flow
    Mail[2] mail               # places, cancels
    int64_t[2] latency_ms
    int64_t sent
    int64_t now_ms
    int64_t requote_ms         # the next requote
    int64_t hour_ms            # the next whole hour
    double ema
    double alpha
    double beta
    double previous            # price of the print before
    # While a position is held: the print that went most against it since the last record, as
    # -side * price; and, of the prints, the least distance to liquidation since the last record.
    double worst_price
    double closest
    double closest_liq         # of the whole run
    double worst_open_loss
    double booked_money        # Σ pnl + Σ fee
    double turnover            # Σ |pnl| + Σ |fee|: the scale of rounding in it
    double starting_balance
    Watch* watch               # NULL: no conditions
    const Limits* limits       # NULL: none; what they look at is kept only if there are some
    double peak                # of the equity points
    int64_t last_fill_ms       # the start before there is one
    int64_t broken_by          # index of the condition or limit that ended the run; -1 = none
    Outcome outcome
    Fill* fills
    Py_ssize_t n_fills
    Py_ssize_t fills_room
    Equity* equity
    Py_ssize_t n_equity
    Py_ssize_t equity_room


EXACT_DTYPE = np.dtype(
    [
        ("strategy", _STRATEGY_DTYPE), ("market", _MARKET_DTYPE), ("flow", _FLOW_RULES_DTYPE),
    ]
    + [(name, "<f8") for name in (
        "starting_balance", "ema_span", "latency_ms", "cancel_latency_ms", "queue_share",
        "venue_leverage", "liquidation_fee",
    )]
    + [("cross_mode", "<i8"), ("fill_mode", "<i8")]
)
LIMITS_DTYPE = np.dtype([(name, "<f8") for name in (
    "max_drawdown", "min_closest_liq", "max_hours_between_fills", "max_loss", "min_adg",
    "min_adg_from",
)])
if sizeof(Settings) != EXACT_DTYPE.itemsize or sizeof(Limits) != LIMITS_DTYPE.itemsize:
    raise ImportError("passivx._core.exact: a struct and its dtype disagree")


# --- recording --------------------------------------------------------------------------------

cdef Fill* new_fill(Run* r) noexcept nogil:
    cdef void* fills = with_room(r.fills, r.n_fills, &r.fills_room, sizeof(Fill))
    if fills is NULL:
        return NULL
    r.fills = <Fill*>fills
    r.n_fills += 1
    return &r.fills[r.n_fills - 1]


cdef inline double liq_distance(const Run* r, double price) noexcept nogil:
    # Relative distance to liquidation; none at all for a print beyond it that did not liquidate.
    cdef double liq = r.venue.account.liq_price
    cdef double distance
    if r.venue.account.size == 0.0 or not liq > 0.0:
        return 1.0
    distance = (price - liq if r.venue.account.size > 0.0 else liq - price) / price
    return distance if distance > 0.0 else 0.0


cdef Limit broken_limit(Run* r, const Equity* point) noexcept nogil:
    # The first limit that the run so far breaks. The figures are those of report/metrics.py, to the
    # last bit; prints that are not noted yet are looked at, and left to be noted.
    cdef const Limits* limits = r.limits
    cdef double level = point.equity if point.equity > 0.0 else 0.0
    cdef double gain = level / r.starting_balance
    cdef double closest = min(r.closest, r.closest_liq)
    cdef double passed_ms = point.ts_ms - r.ts_ms[0]
    cdef double whole_ms = r.ts_ms[r.n - 1] - r.ts_ms[0]
    cdef double pause_ms = point.ts_ms - r.last_fill_ms
    if level > r.peak:
        r.peak = level
    if r.worst_price > -INFINITY:
        closest = min(closest, liq_distance(r, fabs(r.worst_price)))
    if 1.0 - level / r.peak > limits.max_drawdown:
        return Limit.MAX_DRAWDOWN
    if closest < limits.min_closest_liq:
        return Limit.MIN_CLOSEST_LIQ
    if pause_ms / MS_PER_HOUR > limits.max_hours_between_fills:
        return Limit.MAX_HOURS_BETWEEN_FILLS
    if max(0.0, 1.0 - gain) > limits.max_loss:
        return Limit.MAX_LOSS
    # A gain is not negative: without a limit there is no power to be taken.
    if (
        limits.min_adg > 0.0 and passed_ms > 0.0 and passed_ms / whole_ms >= limits.min_adg_from
        and pow(gain, 1.0 / (passed_ms / MS_PER_DAY)) < limits.min_adg
    ):
        return Limit.MIN_ADG
    return Limit.NO_LIMIT


cdef void add_equity(Run* r, int64_t ts_ms) noexcept nogil:
    cdef void* points = with_room(r.equity, r.n_equity, &r.equity_room, sizeof(Equity))
    cdef Equity* point
    if points is NULL:
        r.outcome = Outcome.OUT_OF_MEMORY
        return
    r.equity = <Equity*>points
    point = &r.equity[r.n_equity]
    r.n_equity += 1
    point.ts_ms = ts_ms
    point.wallet = r.venue.account.wallet
    point.equity = r.venue.account.wallet + open_pnl(r.venue, r.venue.book.last)
    if r.limits is not NULL and r.outcome == Outcome.RUNNING:
        r.broken_by = broken_limit(r, point)
        if r.broken_by >= 0:
            r.outcome = Outcome.LIMIT


cdef inline void note_distance(Run* r, double price) noexcept nogil:
    cdef double distance = liq_distance(r, price)
    if distance < r.closest:
        r.closest = distance


cdef inline void note_loss(Run* r, double loss) noexcept nogil:
    if loss < r.worst_open_loss:
        r.worst_open_loss = loss


cdef void note_quiet_prints(Run* r) noexcept nogil:
    # Of the prints since the last record that did nothing, the worst says it all. Before the
    # account changes.
    cdef double price
    if r.worst_price > -INFINITY:
        price = fabs(r.worst_price)
        note_distance(r, price)
        note_loss(r, open_pnl(r.venue, price))
        r.worst_price = -INFINITY


cdef void break_on(Run* r, const Fill* fill) noexcept nogil:
    # Does a condition hold on this record?
    cdef Trade t
    note_record(&t, fill)
    t.apparent_balance = fill.balance * r.flow.strategy.balance_pct
    t.tick_price = r.price[fill.tick]
    t.equity = fill.balance + open_pnl(r.venue, t.tick_price)
    t.closest_long_liq = fill.closest_liq if fill.position_side > 0 else 1.0
    t.closest_short_liq = fill.closest_liq if fill.position_side < 0 else 1.0
    r.broken_by = watch_trade(r.watch, &t)
    if r.broken_by >= 0:
        r.outcome = Outcome.BREAK


cdef void record(Run* r, const Execution* ex, int64_t kind) noexcept nogil:
    cdef const Venue* venue = r.venue
    cdef Fill* fill = new_fill(r)
    if fill is NULL:
        r.outcome = Outcome.OUT_OF_MEMORY
        return
    fill.tick = r.at - 1
    fill.ts_ms = r.now_ms
    fill.position_side = ex.position_side
    fill.kind = kind
    fill.price = ex.price
    fill.qty = ex.qty
    fill.pos_size = venue.account.size
    fill.pos_price = venue.account.entry_price
    fill.liq_price = venue.account.liq_price
    fill.pnl = ex.pnl
    fill.fee = ex.fee
    fill.balance = venue.account.wallet
    fill.closest_liq = r.closest if venue.account.size != 0.0 else 1.0
    if r.closest < r.closest_liq:
        r.closest_liq = r.closest
    r.closest = 1.0
    add_equity(r, r.now_ms)
    if kind != Kind.FUNDING:
        r.last_fill_ms = r.now_ms
    if PASSIVX_DEBUG:
        r.booked_money += ex.pnl + ex.fee
        r.turnover += fabs(ex.pnl) + fabs(ex.fee)
        if not fabs(venue.account.wallet - r.starting_balance - r.booked_money) <= 1e-9 * (
            r.starting_balance + r.turnover
        ):
            r.outcome = Outcome.BROKEN_IDENTITY
    if r.watch is not NULL and r.outcome == Outcome.RUNNING:
        break_on(r, fill)


cdef void tell_account(Run* r) noexcept nogil:
    flow_account(
        r.flow, r.venue.account.wallet, r.venue.account.equity, r.venue.account.size,
        r.venue.account.entry_price, r.venue.account.liq_price)


cdef void take_fill(Run* r, const Execution* ex) noexcept nogil:
    # A fill reaches the bot, and whatever the venue cancels because of it.
    cdef int64_t kind, id
    tell_account(r)
    kind = flow_filled(r.flow, ex.id, fabs(ex.qty))
    record(r, ex, kind)
    if ex.turned:
        id = drop_order(r.venue, ex)
        while id != 0:
            flow_gone(r.flow, id)
            id = drop_order(r.venue, ex)


cdef void take_liquidation(Run* r, const Execution* ex) noexcept nogil:
    note_loss(r, ex.pnl)
    r.closest = 0.0
    r.outcome = Outcome.LIQUIDATION
    record(r, ex, Kind.LIQUIDATION)


# --- prints -----------------------------------------------------------------------------------

cdef void hear_print(Run* r, Py_ssize_t i) noexcept nogil:
    # A print that may fill something, liquidate, or reach a stop level.
    cdef double price = r.price[i]
    cdef Print p = take_print(r.venue, price, r.qty[i], r.buyer_maker[i])
    cdef Execution ex
    cdef Answer answer
    r.at = i + 1
    r.now_ms = r.ts_ms[i]
    r.venue.book.last = price
    note_quiet_prints(r)
    note_distance(r, price)
    while r.outcome == Outcome.RUNNING:
        answer = next_fill(r.venue, &p, &ex)
        if answer == Answer.NOTHING:
            break
        if answer == Answer.LIQUIDATED:
            take_liquidation(r, &ex)
            return
        take_fill(r, &ex)
    note_loss(r, open_pnl(r.venue, price))
    flow_print(r.flow, price)


cdef void set_triggers(const Run* r, double* below, double* above) noexcept nogil:
    # A print of row 0 (buyer-maker) or 1 does nothing while below[row] <= price <= above[row].
    cdef double size = r.venue.account.size
    cdef double liq = r.venue.account.liq_price
    cdef double stop
    cdef int row
    below[0] = fill_trigger(r.venue, 1)
    below[1] = -INFINITY
    above[0] = INFINITY
    above[1] = fill_trigger(r.venue, -1)
    if size == 0.0:
        return
    stop = stop_trigger(r.flow)
    for row in range(2):
        # At or beyond counts for both levels: one double further, a strict comparison says so.
        # The other side's prints do not liquidate, but what they fill beyond the level does.
        if size > 0.0:
            if liq > 0.0:
                below[row] = max(below[row], nextafter(liq, INFINITY))
            below[row] = max(below[row], nextafter(stop, INFINITY))
        else:
            if liq > 0.0:
                above[row] = min(above[row], nextafter(liq, -INFINITY))
            above[row] = min(above[row], nextafter(stop, -INFINITY))


cdef Py_ssize_t skip_quiet(
    Run* r, Py_ssize_t i, int64_t until_ms, const double* below, const double* above,
) noexcept nogil:
    # From print i to the first that is after until_ms or may do something; that one has moved the
    # EMA. Most prints are quiet: they only move the EMA and the worst price.
    cdef const double* price = r.price
    cdef const int64_t* ts_ms = r.ts_ms
    cdef const uint8_t* buyer_maker = r.buyer_maker
    cdef double alpha = r.alpha
    cdef double beta = r.beta
    cdef double ema = r.ema
    cdef double previous = r.previous
    cdef double worst = r.worst_price
    cdef double against = 0.0
    cdef double p, x
    cdef Py_ssize_t n = r.n
    cdef int row
    if r.venue.account.size != 0.0:
        against = -1.0 if r.venue.account.size > 0.0 else 1.0
    while i < n and ts_ms[i] <= until_ms:
        p = price[i]
        row = buyer_maker[i] == 0
        if p != previous:
            ema = ema_step(ema, p, alpha, beta)
            previous = p
        if (p < below[row]) | (p > above[row]):
            break
        if against != 0.0:
            x = against * p
            worst = x if x > worst else worst
        i += 1
    r.ema = ema
    r.previous = previous
    r.worst_price = worst
    return i


# Through a pointer no compiler inlines it: the loop has the registers to itself.
cdef Py_ssize_t (*skip_quiet_apart)(
    Run* r, Py_ssize_t i, int64_t until_ms, const double* below, const double* above,
) noexcept nogil
skip_quiet_apart = skip_quiet


cdef void play_prints(Run* r, int64_t until_ms) noexcept nogil:
    # The prints up to and including until_ms, or up to the end of the first millisecond after
    # which a plan is due.
    cdef double[2] below
    cdef double[2] above
    cdef Py_ssize_t i = r.at
    set_triggers(r, &below[0], &above[0])
    while True:
        i = skip_quiet_apart(r, i, until_ms, &below[0], &above[0])
        if i == r.n or r.ts_ms[i] > until_ms:
            break
        hear_print(r, i)
        if r.outcome != Outcome.RUNNING:
            return
        if r.flow.due:
            until_ms = r.ts_ms[i]
        set_triggers(r, &below[0], &above[0])
        i += 1
    r.at = i
    r.now_ms = until_ms


cdef void look_at_market(Run* r) noexcept nogil:
    # Brings the book up to the prints played and shows bot and planner the market as it is now.
    cdef Py_ssize_t last = r.at - 1
    cdef Py_ssize_t k = last
    cdef Py_ssize_t i
    cdef Touch touch
    cdef const Market* market = &r.venue.market
    # What the other side printed last is its price, whatever was before: no need to look further.
    while k >= r.booked and (r.buyer_maker[k] != 0) == (r.buyer_maker[last] != 0):
        k -= 1
    if k >= r.booked:
        if r.buyer_maker[k]:
            r.venue.book.bid = r.price[k]
        else:
            r.venue.book.ask = r.price[k]
    for i in range(k + 1, r.at):
        book_print(&r.venue.book, r.price[i], r.buyer_maker[i], market)
    r.booked = r.at
    r.venue.book.last = r.price[last]
    touch = touch_of(&r.venue.book, market)
    r.flow.view.last_price = r.price[last]
    r.flow.view.bid = touch.bid
    r.flow.view.ask = touch.ask
    r.flow.view.ema = r.ema


# --- messages ---------------------------------------------------------------------------------

cdef void post_outbox(Run* r) noexcept nogil:
    # What the bot sends now arrives a latency later.
    cdef Mail* mail
    cdef int64_t slot
    cdef int i, which
    for i in range(r.flow.n_outbox):
        which = 1 if r.flow.outbox[i].what == What.CANCEL else 0
        mail = &r.mail[which]
        slot = (mail.first + mail.n) % ROOM
        mail.message[slot] = r.flow.outbox[i]
        mail.arrives_ms[slot] = r.now_ms + r.latency_ms[which]
        mail.number[slot] = r.sent
        mail.n += 1
        r.sent += 1
    r.flow.n_outbox = 0
    if r.flow.out_of_memory:
        r.outcome = Outcome.OUT_OF_MEMORY


cdef inline int64_t next_arrival_ms(const Run* r) noexcept nogil:
    cdef int64_t first = INT64_MAX
    cdef int which
    for which in range(2):
        if r.mail[which].n and r.mail[which].arrives_ms[r.mail[which].first] < first:
            first = r.mail[which].arrives_ms[r.mail[which].first]
    return first


cdef bint next_message(Run* r, Message* out) noexcept nogil:
    # The next message that arrives now, in the order of sending.
    cdef Mail* mail
    cdef int64_t number = INT64_MAX
    cdef int which
    cdef int chosen = -1
    for which in range(2):
        mail = &r.mail[which]
        if mail.n and mail.arrives_ms[mail.first] == r.now_ms and mail.number[mail.first] < number:
            number = mail.number[mail.first]
            chosen = which
    if chosen < 0:
        return False
    mail = &r.mail[chosen]
    out[0] = mail.message[mail.first]
    mail.first = (mail.first + 1) % ROOM
    mail.n -= 1
    return True


cdef bint deliver(Run* r) noexcept nogil:
    # The messages that arrive now; True when a market order filled.
    cdef Message message
    cdef Resting order
    cdef Execution ex
    cdef Answer answer
    cdef bint filled = False
    while r.outcome == Outcome.RUNNING and next_message(r, &message):
        flow_arrived(r.flow, &message)
        if message.what == What.CANCEL:
            if cancel(r.venue, message.id, message.side):
                flow_gone(r.flow, message.id)
            continue
        order.id = message.id
        order.price = message.price
        order.qty = message.qty
        order.reduce_only = message.reduce_only
        if message.what == What.PLACE_AT_MARKET:
            note_quiet_prints(r)
        answer = place(
            r.venue, &order, message.side, message.what == What.PLACE_AT_MARKET, &ex)
        if answer == Answer.RESTS:
            flow_placed(r.flow, message.id)
        elif answer == Answer.FILLED:
            take_fill(r, &ex)
            filled = True
        elif answer == Answer.LIQUIDATED:
            take_liquidation(r, &ex)
        else:
            flow_refused(r.flow, message.id, answer == Answer.WOULD_TAKE)
    return filled


cdef void exchange_messages(Run* r) noexcept nogil:
    # Steps 3 to 5: arrivals, a plan if a market order filled, what acknowledgements released.
    if deliver(r) and r.outcome == Outcome.RUNNING:
        flow_plan(r.flow)
        post_outbox(r)
    flow_release(r.flow)
    post_outbox(r)


cdef void pay_funding(Run* r) noexcept nogil:
    cdef Execution ex
    r.flow.view.funding_rate = r.funding[r.at_funding].rate
    if r.venue.account.size != 0.0:
        note_quiet_prints(r)
        ex.position_side = 1 if r.venue.account.size > 0.0 else -1
        ex.price = r.venue.book.last
        ex.qty = 0.0
        ex.fee = 0.0
        ex.pnl = settle_funding(r.venue, r.funding[r.at_funding].rate)
        tell_account(r)
        record(r, &ex, Kind.FUNDING)
    r.at_funding += 1


# --- the loop ---------------------------------------------------------------------------------

cdef inline int64_t funding_ms(const Run* r) noexcept nogil:
    return r.funding[r.at_funding].ts_ms if r.at_funding < r.n_funding else INT64_MAX


cdef inline int64_t multiple_from(int64_t ts_ms, int64_t step_ms) noexcept nogil:
    # The first multiple of the step that is not before ts_ms (>= 0).
    return (ts_ms + step_ms - 1) // step_ms * step_ms


cdef void requote(Run* r) noexcept nogil:
    cdef int64_t sent = r.sent
    cdef int64_t step_ms = r.flow.rules.requote_ms
    cdef int64_t news_ms
    flow_requote(r.flow)
    post_outbox(r)
    r.requote_ms += step_ms
    if r.sent == sent and r.mail[0].n == 0 and r.mail[1].n == 0:
        # Nothing is on its way and nothing was to be done: until there is news, nothing will be.
        news_ms = r.ts_ms[r.at] if r.at < r.n else INT64_MAX
        news_ms = min(news_ms, funding_ms(r))
        if news_ms != INT64_MAX and news_ms > r.requote_ms:
            r.requote_ms = multiple_from(news_ms, step_ms)


cdef void play(Run* r, Py_ssize_t until, int64_t end_ms) noexcept nogil:
    # Plays whole milliseconds until so many prints have been played, or the run has ended.
    cdef int64_t next_ms
    while r.outcome == Outcome.RUNNING and r.at < until:
        next_ms = min(next_arrival_ms(r), funding_ms(r))
        next_ms = min(next_ms, min(r.requote_ms, r.hour_ms))
        next_ms = min(next_ms, end_ms)
        if r.at == 0:
            next_ms = r.ts_ms[0]
        play_prints(r, next_ms)
        if r.outcome != Outcome.RUNNING:
            return
        look_at_market(r)
        if r.flow.due:
            flow_plan(r.flow)
            post_outbox(r)
        if next_arrival_ms(r) == r.now_ms:
            exchange_messages(r)
        while funding_ms(r) == r.now_ms and r.outcome == Outcome.RUNNING:
            pay_funding(r)
        if r.requote_ms == r.now_ms and r.outcome == Outcome.RUNNING:
            requote(r)
        while next_arrival_ms(r) == r.now_ms and r.outcome == Outcome.RUNNING:
            exchange_messages(r)
        if r.outcome != Outcome.RUNNING:
            return
        if r.hour_ms == r.now_ms:
            if r.now_ms < end_ms:
                add_equity(r, r.now_ms)
            r.hour_ms += MS_PER_HOUR
        if r.now_ms == end_ms:
            r.outcome = Outcome.END


cdef void begin(Run* r, const Settings* s) noexcept nogil:
    cdef int64_t start_ms = r.ts_ms[0]
    r.venue.market = s.market
    r.venue.leverage = s.venue_leverage
    r.venue.liquidation_fee = s.liquidation_fee
    r.venue.queue_share = s.queue_share
    r.venue.cross_mode = s.cross_mode
    r.venue.fill_mode = s.fill_mode
    r.venue.account.wallet = s.starting_balance
    r.venue.account.equity = s.starting_balance
    book_start(&r.venue.book, r.price[0], &s.market)
    flow_start(r.flow, &s.strategy, &s.market, &s.flow, s.starting_balance)
    # What happens between two whole milliseconds is met by the next.
    r.latency_ms[0] = <int64_t>ceil(s.latency_ms)
    r.latency_ms[1] = <int64_t>ceil(s.cancel_latency_ms)
    r.ema = r.price[0]
    r.previous = r.price[0]
    r.alpha = 2.0 / (s.ema_span + 1.0)
    r.beta = 1.0 - r.alpha
    r.requote_ms = multiple_from(start_ms, s.flow.requote_ms)
    r.hour_ms = multiple_from(start_ms + 1, MS_PER_HOUR)
    while r.at_funding < r.n_funding and r.funding[r.at_funding].ts_ms < start_ms:
        r.flow.view.funding_rate = r.funding[r.at_funding].rate
        r.at_funding += 1
    r.worst_price = -INFINITY
    r.closest = 1.0
    r.closest_liq = 1.0
    r.last_fill_ms = start_ms
    r.broken_by = -1
    r.starting_balance = s.starting_balance
    add_equity(r, start_ms)


cdef void finish(Run* r) noexcept nogil:
    # The prints after the last record, and the last point of the equity curve.
    note_quiet_prints(r)
    if r.closest < r.closest_liq:
        r.closest_liq = r.closest
    if r.outcome == Outcome.END:
        add_equity(r, r.now_ms)


cdef _run_one(
    const double[::1] price, const double[::1] qty, const int64_t[::1] ts_ms,
    const uint8_t[::1] buyer_maker, const Settings* s, const Tier[::1] tiers,
    const Funding[::1] funding, const Instruction[::1] breaks, const Limits[::1] limits,
    Py_ssize_t chunk, progress,
):
    # One run of arguments that have been checked: what `run` returns.
    cdef Py_ssize_t n = price.shape[0]
    cdef Py_ssize_t until = 0
    cdef Watch watch
    cdef Run* r = <Run*>calloc(1, sizeof(Run))
    if r is NULL:
        raise MemoryError
    try:
        r.venue = <Venue*>calloc(1, sizeof(Venue))
        r.flow = <Flow*>calloc(1, sizeof(Flow))
        if r.venue is NULL or r.flow is NULL:
            raise MemoryError
        r.price, r.qty, r.ts_ms, r.buyer_maker = &price[0], &qty[0], &ts_ms[0], &buyer_maker[0]
        r.n = n
        r.venue.tiers, r.venue.n_tiers = &tiers[0], tiers.shape[0]
        if funding.shape[0]:
            r.funding, r.n_funding = &funding[0], funding.shape[0]
        if limits is not None:
            r.limits = &limits[0]
        begin(r, s)
        if breaks is not None and breaks.shape[0] > 0:
            watch_start(&watch, &breaks[0], breaks.shape[0], s.starting_balance, n, ts_ms[0])
            r.watch = &watch
        while r.outcome == Outcome.RUNNING:
            until = min(n, max(until, r.at) + chunk)
            with nogil:
                play(r, until, r.ts_ms[n - 1])
            PyErr_CheckSignals()
            if progress is not None:
                progress(r.at)
            if r.outcome == Outcome.RUNNING and r.at == n:
                raise ValueError("ts_ms must be in time order")
        finish(r)
        if r.outcome == Outcome.OUT_OF_MEMORY:
            raise MemoryError("the record of the run could not grow")
        if r.outcome == Outcome.BROKEN_IDENTITY:
            raise AssertionError(
                f"wallet {r.venue.account.wallet} is not {r.starting_balance} + {r.booked_money}")
        fills = np.empty(r.n_fills, _FILL_DTYPE)
        equity = np.empty(r.n_equity, _EQUITY_DTYPE)
        _copy(fills, equity, r)
        return (
            fills, equity, Outcome(r.outcome), r.broken_by, r.at, r.worst_open_loss, r.closest_liq)
    finally:
        if r.flow is not NULL:
            flow_free(r.flow)
        free(r.flow)
        free(r.venue)
        free(r.fills)
        free(r.equity)
        free(r)


cdef _copy(Fill[::1] fills, Equity[::1] equity, const Run* r):
    if r.n_fills:
        memcpy(&fills[0], r.fills, r.n_fills * sizeof(Fill))
    memcpy(&equity[0], r.equity, r.n_equity * sizeof(Equity))


cdef _check_shared(
    const double[::1] price, const double[::1] qty, const int64_t[::1] ts_ms,
    const uint8_t[::1] buyer_maker, const Tier[::1] tiers, const Instruction[::1] breaks,
    const Limits[::1] limits, Py_ssize_t chunk,
):
    # What all runs of a call have in common.
    cdef Py_ssize_t n = price.shape[0]
    cdef int i
    if not n == qty.shape[0] == ts_ms.shape[0] == buyer_maker.shape[0]:
        raise ValueError("price, qty, ts_ms and buyer_maker must have the same length")
    if n == 0:
        raise ValueError("at least one print is needed")
    if not 0 <= ts_ms[0] <= 1e15:
        raise ValueError(f"ts_ms must be in [0, 1e+15], was {ts_ms[0]}")
    if tiers.shape[0] == 0:
        raise ValueError("at least one tier is needed")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, was {chunk}")
    if breaks is not None:
        check_program(breaks)
    if limits is None:
        return
    if limits.shape[0] != 1:
        raise ValueError("limits must be one record")
    for i, name in enumerate(LIMITS_DTYPE.names):
        number = (<const double*>&limits[0])[i]
        if number != number:
            raise ValueError(f"{name} must be a number, was {number}")


cdef _check(const Settings* s, where=""):
    for name, number, least, most in (
        ("starting_balance", s.starting_balance, 5e-324, 1e300),
        ("ema_span", s.ema_span, 1.0, 1e300),
        ("latency_ms", s.latency_ms, 0.0, 1e12),
        ("cancel_latency_ms", s.cancel_latency_ms, 0.0, 1e12),
        ("queue_share", s.queue_share, 0.0, 1.0),
        ("venue_leverage", s.venue_leverage, 1.0, 1e300),
        ("liquidation_fee", s.liquidation_fee, 0.0, 1.0),
        ("leverage", s.strategy.leverage, 1.0, 1e300),
        ("requote_ms", s.flow.requote_ms, 1, 3_600_000),
        ("orders_per_batch", s.flow.orders_per_batch, 1, 50),
        ("fill_mode", s.fill_mode, 0, 2),
    ):
        if not least <= number <= most:
            raise ValueError(f"{where}{name} must be in [{least:g}, {most:g}], was {number}")


def run(
    const double[::1] price, const double[::1] qty, const int64_t[::1] ts_ms,
    const uint8_t[::1] buyer_maker, const Settings[::1] settings, const Tier[::1] tiers,
    const Funding[::1] funding, *, const Instruction[::1] breaks=None,
    const Limits[::1] limits=None, Py_ssize_t chunk=250_000, progress=None,
):
    """Replay prints against a strategy at a venue with latency: docs/backtest.md.

    Parameters
    ----------
    price, qty, ts_ms, buyer_maker : arrays of f8, f8, i8, u1, shape (n,), n >= 1
        Prints in time order, prices finite and > 0, times >= 0 (not checked here).
    settings : ndarray of EXACT_DTYPE, shape (1,)
        Within the ranges of a config and a market file.
    tiers : ndarray of TIER_DTYPE, shape (m,), m >= 1
        Maintenance margin, floors rising from 0.
    funding : ndarray of FUNDING_DTYPE, shape (k,)
        Settlements in time order; may be empty.
    breaks : ndarray of INSTRUCTION_DTYPE, shape (b,), optional
        A program of break_on conditions; the record for which one holds is the run's last.
    limits : ndarray of LIMITS_DTYPE, shape (1,), optional
        What makes an equity point the run's last: the figure of the run up to it is worse than the
        field says. Looked at at every point but a liquidation's and the end's, at a record before
        ``breaks``. Beyond each of the first four no later point can bring a run back. *level* is
        equity, or 0 where it is negative.

        - max_drawdown: 1 - level / (highest level so far) is more; inf = no limit.
        - min_closest_liq: the least relative distance of a print to the liquidation price is less;
          -inf.
        - max_hours_between_fills: the time since the last fill before the point, or since the
          start, is more hours. Fundings are no fills. inf.
        - max_loss: max(0, 1 - level / starting_balance) is more; inf.
        - min_adg, min_adg_from: (level / starting_balance) ** (1 / days since the start) is less,
          and the share of the run's time that has passed is at least min_adg_from; -inf and 1. The
          one limit that a later point could satisfy again, and the one place of a run where the
          last bit is the C library's (``pow``).
    chunk : int
        Prints between two looks at Ctrl-C and calls of ``progress(prints_done)``.

    Returns
    -------
    fills : ndarray of FILL_DTYPE, shape (f,)
    equity : ndarray of EQUITY_DTYPE, shape (e,), e >= 1
    outcome : Outcome
        END, LIQUIDATION, BREAK or LIMIT.
    broken_by : int
        Index of the condition that ended the run, or of the limit in ``LIMITS_DTYPE.names`` (the
        first when a point breaks several), else -1.
    n_played : int
        Prints looked at; 0 when the start itself breaks a limit.
    worst_open_loss : float
        Most negative open pnl at any print, settle currency, <= 0.
    closest_liq : float
        Least relative distance of any print to the liquidation price, 0 when liquidated, 1 = never
        near.

    Raises
    ------
    ValueError
        If the arrays differ in length or are empty, a setting is out of range, ``breaks`` is no
        sound program, or a limit is NaN.
    AssertionError
        Debug builds: if the wallet is not the starting balance + Σ pnl + Σ fee of the records.
    """
    _check_shared(price, qty, ts_ms, buyer_maker, tiers, breaks, limits, chunk)
    if settings.shape[0] != 1:
        raise ValueError("settings must be one record")
    _check(&settings[0])
    return _run_one(
        price, qty, ts_ms, buyer_maker, &settings[0], tiers, funding, breaks, limits, chunk,
        progress)


def run_many(
    const double[::1] price, const double[::1] qty, const int64_t[::1] ts_ms,
    const uint8_t[::1] buyer_maker, const Settings[::1] candidates, const Tier[::1] tiers,
    const Funding[::1] funding, *, const Instruction[::1] breaks=None,
    const Limits[::1] limits=None, Py_ssize_t chunk=250_000, progress=None,
):
    """Replay the same prints for one candidate after the other; threads may do so side by side.

    Parameters
    ----------
    candidates : ndarray of EXACT_DTYPE, shape (c,)
        Each as ``settings`` of `run`; may be empty.
    chunk : int
        Prints between two looks at Ctrl-C and calls of ``progress(i, prints_done)`` for candidate
        i. What it raises ends the call.

    The others are those of `run`, for every candidate.

    Returns
    -------
    list of tuples, length c
        What `run` returns for each.

    Raises
    ------
    ValueError, AssertionError
        As `run`; no candidate is run unless all are within their ranges.
    """
    cdef Py_ssize_t i
    _check_shared(price, qty, ts_ms, buyer_maker, tiers, breaks, limits, chunk)
    for i in range(candidates.shape[0]):
        _check(&candidates[i], f"candidate {i}: ")
    results = []
    for i in range(candidates.shape[0]):
        results.append(_run_one(
            price, qty, ts_ms, buyer_maker, &candidates[i], tiers, funding, breaks, limits, chunk,
            None if progress is None else partial(progress, i)))
    return results
