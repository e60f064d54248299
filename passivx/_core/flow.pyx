"""The order flow: when to plan, what differs from what is live, in which groups it is sent.

A struct machine between the planner and a venue, for backtest, dry-run and live alike. The driver
keeps the market in ``flow.view`` up to date, tells what happened (``flow_print``, ``flow_account``,
``flow_filled``, ``flow_placed``, ``flow_refused``, ``flow_gone``, ``flow_arrived``), plans when
``flow.due`` or at a requote, and carries the messages of ``flow.outbox`` to the venue.
docs/backtest.md states the rules (*Planning moments*, *Groups*, *Stops*). Row 0 of a pair stands
for buys, row 1 for sells.
"""

import numpy as np

from libc.math cimport INFINITY, NAN, fabs, isfinite
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset
from passivx._core.formulas cimport grid_near, min_order_qty, near_to
from passivx._core.grid cimport (
    budget, create, max_position, plan, stop_levels, stop_reached,
)
from passivx._core.memory cimport with_room
from passivx._core.types cimport Kind, Market, Order, Strategy, View

from passivx._core.types import ORDER_DTYPE as _ORDER_DTYPE

# A re-creation must bring a clamped order nearer to its ideal by more than this share of it.
WORTH_MOVING = 0.0005
# A resting flat entry is kept while its quantity is within this share of the new one.
QTY_TOLERANCE = 0.05
# What rounding may add to a sum of quantities; more is more than the maximum position.
SUM_NOISE = 1e-9

cdef double _worth_moving = WORTH_MOVING
cdef double _qty_tolerance = QTY_TOLERANCE
cdef double _sum_noise = SUM_NOISE


# --- what the driver tells --------------------------------------------------------------------

cdef void flow_start(
    Flow* flow, const Strategy* strategy, const Market* market, const FlowRules* rules,
    double wallet,
) noexcept nogil:
    memset(flow, 0, sizeof(Flow))
    flow.strategy = strategy[0]
    flow.market = market[0]
    flow.rules = rules[0]
    flow.view.wallet = wallet
    flow.view.equity = wallet
    flow.view.funding_rate = NAN
    flow.armed = True
    flow.due = True            # the first plan


cdef void flow_free(Flow* flow) noexcept nogil:
    free(flow.refused)
    flow.refused = NULL


cdef inline bint is_stop(int64_t kind) noexcept nogil:
    return kind == Kind.STOP_LOSS_LIQ_DIFF or kind == Kind.STOP_LOSS_POS_PRICE_DIFF


cdef inline void end_stop(Flow* flow) noexcept nogil:
    flow.view.stop_qty = 0.0
    flow.view.stop_price = 0.0
    flow.view.stop_kind = 0
    flow.stop_id = 0


cdef void flow_account(
    Flow* flow, double wallet, double equity, double size, double entry_price, double liq_price,
) noexcept nogil:
    # The account after a fill or funding. A stop belongs to the position it was made for.
    cdef View* v = &flow.view
    if v.size != 0.0 and not v.size * size > 0.0:
        v.stop_due = 0
        end_stop(flow)
    if size == 0.0:
        v.close_base = 0.0
    v.wallet = wallet
    v.equity = equity
    v.size = size
    v.entry_price = entry_price
    v.liq_price = liq_price
    if size != 0.0:
        flow.levels = stop_levels(1 if size > 0.0 else -1, entry_price, liq_price, &flow.strategy)
    flow.settled = False


cdef inline bint minds_levels(const Flow* flow) noexcept nogil:
    # Does a print at a stop level ask for a plan: for a stop or, when none may start yet, to take
    # back the re-entries of a plan that was made when the price was not there?
    return (
        flow.view.size != 0.0 and flow.view.stop_qty == 0.0 and flow.view.stop_due == 0
        and (flow.armed or flow.beyond == 0))


cdef void flow_print(Flow* flow, double price) noexcept nogil:
    # A trade, after its own fills: has it reached a stop level?
    cdef int64_t kind
    if minds_levels(flow):
        kind = stop_reached(1 if flow.view.size > 0.0 else -1, price, flow.levels)
        if kind != 0:
            flow.due = True
            if flow.armed:
                flow.view.stop_due = kind


cdef double stop_trigger(const Flow* flow) noexcept nogil:
    # flow_print can change nothing while side * price > side * this (side: of the position).
    cdef int64_t side = 1 if flow.view.size > 0.0 else -1
    if not minds_levels(flow):
        return -side * INFINITY
    return flow.levels.liq if side * flow.levels.liq > side * flow.levels.pos else flow.levels.pos


cdef inline Live* find(Flow* flow, int64_t id) noexcept nogil:
    cdef int i
    for i in range(flow.n_live):
        if flow.live[i].id == id:
            return &flow.live[i]
    return NULL


cdef void flow_gone(Flow* flow, int64_t id) noexcept nogil:
    # An order the venue no longer has, for whatever reason.
    cdef Live* order = find(flow, id)
    cdef Py_ssize_t behind
    flow.settled = False
    if order is NULL:
        return
    if id == flow.stop_id:
        end_stop(flow)         # it ended unfilled: the next requote may start another
    behind = &flow.live[flow.n_live] - order - 1
    if behind > 0:
        memmove(order, order + 1, behind * sizeof(Live))
    flow.n_live -= 1


cdef int64_t flow_filled(Flow* flow, int64_t id, double qty) noexcept nogil:
    # A fill of one of our orders, after flow_account; returns the order's kind, 0 for a stranger.
    cdef Live* order = find(flow, id)
    cdef View* v = &flow.view
    cdef int64_t kind
    flow.due = True
    flow.settled = False
    if order is NULL:
        return 0
    kind = order.ideal.kind
    if v.size != 0.0 and kind != Kind.CLOSE:
        v.close_base = fabs(v.size)
    if is_stop(kind) and v.stop_qty > 0.0 and (not order.at_market or id == flow.stop_id):
        v.stop_qty = near_to(v.stop_qty - qty, flow.market.qty_step)
        if not v.stop_qty > 0.0 or order.at_market:
            end_stop(flow)
    order.qty = near_to(order.qty - qty, flow.market.qty_step)
    # An order lifted to the venue's minimum is larger than its ideal.
    order.ideal.qty = max(0.0, near_to(order.ideal.qty - qty, flow.market.qty_step))
    if not order.qty > 0.0 or order.at_market:
        flow_gone(flow, id)
    return kind


cdef void flow_placed(Flow* flow, int64_t id) noexcept nogil:
    cdef Live* order = find(flow, id)
    if order is not NULL and order.state == LiveState.SENT:
        order.state = LiveState.IN_BOOK


cdef void flow_kept(Flow* flow, int64_t id) noexcept nogil:
    # A cancel came to nothing: the order still rests, and the next plan may cancel it again. What
    # this one had for its side was meant to rest without it, perhaps in its very slot.
    cdef Live* order = find(flow, id)
    cdef Queue* queue
    flow.settled = False
    if order is not NULL and order.state == LiveState.CANCELLING:
        order.state = LiveState.IN_BOOK
        queue = &flow.queues[0 if order.ideal.side > 0 else 1]
        queue.at_create = queue.n_creates


cdef int64_t flow_take_over(
    Flow* flow, const Order* ideal, double price, double qty, int64_t state
) noexcept nogil:
    # An order of ours that an earlier run has sent; returns its number, 0 when there is no room.
    cdef Live* order
    if flow.n_live == MAX_LIVE:
        return 0
    order = &flow.live[flow.n_live]
    flow.n_live += 1
    flow.last_id += 1
    flow.settled = False
    order.id = flow.last_id
    order.state = state
    order.at_market = False
    order.price = price
    order.qty = qty
    order.ideal = ideal[0]
    return order.id


cdef void flow_refused(Flow* flow, int64_t id, bint would_take) noexcept nogil:
    # The venue does not take the order. A post-only slot waits for the next requote.
    cdef Live* order = find(flow, id)
    cdef void* refused
    flow.settled = False
    if order is NULL:
        return
    if would_take:
        refused = with_room(flow.refused, flow.n_refused, &flow.refused_room, sizeof(Order))
        if refused is NULL:
            flow.out_of_memory = True
            return
        flow.refused = <Order*>refused
        flow.refused[flow.n_refused] = order.ideal
        flow.n_refused += 1
    elif id == flow.stop_id:
        end_stop(flow)
    flow_gone(flow, id)


cdef void flow_arrived(Flow* flow, const Message* message) noexcept nogil:
    # A message has reached the venue, whatever came of it: its group is one nearer to its end.
    cdef Queue* queue = &flow.queues[0 if message.side > 0 else 1]
    if message.what != What.PLACE_AT_MARKET and queue.on_its_way > 0:
        queue.on_its_way -= 1


# --- comparison -------------------------------------------------------------------------------

cdef inline bint same_slot(const Order* a, const Order* b) noexcept nogil:
    return (
        a.side == b.side and a.price == b.price and a.qty == b.qty
        and a.reduce_only == b.reduce_only)


cdef bint near_enough(const Flow* flow, const Order* live, const Order* wanted) noexcept nogil:
    # Flat entries follow the EMA: one that is near enough keeps its place in the queue.
    cdef double k, n, most
    if not (live.kind == Kind.ENTRY and wanted.kind == Kind.ENTRY and live.side == wanted.side):
        return False
    k = grid_near(wanted.price, flow.market.price_step)
    n = grid_near(wanted.qty, flow.market.qty_step)
    most = flow.rules.requote_tolerance * k
    most = most if most > 1.0 else 1.0
    return (
        fabs(grid_near(live.price, flow.market.price_step) - k) <= most
        and fabs(grid_near(live.qty, flow.market.qty_step) - n) <= _qty_tolerance * n)


cdef inline bint equal(const Flow* flow, const Order* live, const Order* wanted) noexcept nogil:
    return same_slot(live, wanted) or near_enough(flow, live, wanted)


cdef bint worth_moving(
    const Flow* flow, const Live* order, const Order* wanted, bint nearest
) noexcept nogil:
    # Could a clamped order now rest clearly nearer to its ideal?
    cdef Order now
    cdef double k, gained
    if wanted.kind == Kind.ENTRY or order.price == wanted.price:
        return False
    if not create(&now, wanted, nearest, &flow.view, &flow.strategy, &flow.market):
        return False
    k = grid_near(wanted.price, flow.market.price_step)
    gained = fabs(grid_near(order.price, flow.market.price_step) - k) - fabs(
        grid_near(now.price, flow.market.price_step) - k)
    return gained > _worth_moving * k


cdef bint is_refused(const Flow* flow, const Order* wanted) noexcept nogil:
    cdef int i
    for i in range(flow.n_refused):
        if same_slot(&flow.refused[i], wanted):
            return True
    return False


cdef inline int match(Flow* flow, const Order* order, int n, int guess) noexcept nogil:
    # The first order of the plan that this live one equals; -1 = none. Live orders mostly come in
    # the order of the plan; only a stop, which is its first, can share a slot with another.
    cdef int i
    if n > 0 and not flow.taken[0] and equal(flow, order, &flow.ideal[0]):
        return 0
    if guess < n and not flow.taken[guess] and equal(flow, order, &flow.ideal[guess]):
        return guess
    for i in range(1, n):
        if not flow.taken[i] and equal(flow, order, &flow.ideal[i]):
            return i
    return -1


# --- sending ----------------------------------------------------------------------------------

cdef inline void post(Flow* flow, int64_t what, const Live* order) noexcept nogil:
    cdef Message* message = &flow.outbox[flow.n_outbox]
    message.what = what
    message.id = order.id
    message.side = order.ideal.side
    message.price = order.price
    message.qty = order.qty
    message.reduce_only = order.ideal.reduce_only
    flow.n_outbox += 1


cdef void send_order(
    Flow* flow, const Order* sent, const Order* ideal, bint at_market
) noexcept nogil:
    cdef Live* order = &flow.live[flow.n_live]
    flow.n_live += 1
    flow.last_id += 1
    order.id = flow.last_id
    order.state = LiveState.SENT
    order.at_market = at_market
    order.price = sent.price
    order.qty = sent.qty
    order.ideal = ideal[0]
    post(flow, What.PLACE_AT_MARKET if at_market else What.PLACE, order)


cdef bint fits(const Flow* flow, const Order* wanted) noexcept nogil:
    # Would everything on this side, filled, still be a position that the planner allows?
    cdef double total = wanted.side * flow.view.size + wanted.qty
    cdef double most
    cdef int i
    if wanted.reduce_only:
        return True
    for i in range(flow.n_live):
        if flow.live[i].ideal.side == wanted.side and not flow.live[i].ideal.reduce_only:
            total += flow.live[i].ideal.qty
    most = max_position(
        budget(&flow.view, &flow.strategy), wanted.price, flow.strategy.leverage, &flow.market)
    return total <= most + fabs(most) * _sum_noise


cdef inline bint too_far(const Flow* flow, const Order* wanted) noexcept nogil:
    return wanted.kind == Kind.REENTRY and (
        fabs(wanted.price - flow.view.last_price) / flow.view.last_price
        > flow.strategy.max_order_distance)


cdef void send_group(Flow* flow, Queue* queue) noexcept nogil:
    # The side waits for nothing: its next cancels, else its next creates.
    cdef Live* order
    cdef const Order* wanted
    cdef Order sent
    while queue.at_cancel < queue.n_cancels and queue.on_its_way < flow.rules.orders_per_batch:
        order = find(flow, queue.cancels[queue.at_cancel])
        queue.at_cancel += 1
        if order is not NULL:
            order.state = LiveState.CANCELLING
            post(flow, What.CANCEL, order)
            queue.on_its_way += 1
    if queue.on_its_way > 0:
        return
    while (
        queue.at_create < queue.n_creates and queue.on_its_way < flow.rules.orders_per_batch
        and flow.n_live < MAX_LIVE
    ):
        wanted = &queue.creates[queue.at_create]
        queue.at_create += 1
        if not create(
            &sent, wanted, queue.nearest[queue.at_create - 1], &flow.view, &flow.strategy,
            &flow.market,
        ) or not fits(flow, wanted):
            if not too_far(flow, wanted):
                flow.settled = False
            continue
        send_order(flow, &sent, wanted, False)
        queue.on_its_way += 1
        flow.settled = False


cdef void flow_release(Flow* flow) noexcept nogil:
    # Sends what acknowledgements have released.
    cdef int row
    for row in range(2):
        if flow.queues[row].on_its_way == 0:
            send_group(flow, &flow.queues[row])


# --- planning ---------------------------------------------------------------------------------

cdef void queue_cancel(Flow* flow, const Live* order) noexcept nogil:
    # Nearest ideal price first; live orders come by age, which settles ties.
    cdef Queue* queue = &flow.queues[0 if order.ideal.side > 0 else 1]
    cdef int at = queue.n_cancels
    cdef const Live* before
    while at > 0:
        before = find(flow, queue.cancels[at - 1])
        if not order.ideal.side * before.ideal.price < order.ideal.side * order.ideal.price:
            break
        queue.cancels[at] = queue.cancels[at - 1]
        at -= 1
    queue.cancels[at] = order.id
    queue.n_cancels += 1


cdef void plan_and_send(Flow* flow, bint requote) noexcept nogil:
    cdef View* v = &flow.view
    cdef Queue* queue
    cdef Live* order
    cdef int i, n, row, found
    cdef int guess = 0
    cdef int nearest = -1
    flow.due = False
    flow.settled = v.size != 0.0 and v.stop_qty == 0.0 and v.stop_due == 0
    flow.beyond = stop_reached(
        1 if v.size > 0.0 else -1, v.last_price, flow.levels) if v.size != 0.0 else 0
    n = plan(&flow.ideal[0], v, &flow.strategy, &flow.market)
    memset(&flow.taken[0], 0, n)
    for row in range(2):
        queue = &flow.queues[row]
        queue.n_cancels = 0
        queue.at_cancel = 0
        queue.n_creates = 0
        queue.at_create = 0
    for i in range(n):
        if flow.ideal[i].kind == Kind.REENTRY:
            nearest = i
            break

    if v.stop_due != 0:
        # The plan begins with it. From now on it is outstanding.
        v.stop_due = 0
        v.stop_kind = flow.ideal[0].kind
        v.stop_price = flow.ideal[0].price
        v.stop_qty = flow.ideal[0].qty
        flow.armed = False
        if flow.rules.market_stop_loss and flow.n_live < MAX_LIVE:
            send_order(flow, &flow.ideal[0], &flow.ideal[0], True)
            flow.stop_id = flow.last_id
        elif flow.rules.market_stop_loss:
            end_stop(flow)     # so many answers are missing that nothing more can be told apart
    if n > 0 and flow.rules.market_stop_loss and is_stop(flow.ideal[0].kind):
        flow.taken[0] = True   # it rests nowhere: it is on its way at market

    for i in range(flow.n_live):
        order = &flow.live[i]
        if order.state == LiveState.CANCELLING or order.at_market:
            continue
        found = match(flow, &order.ideal, n, guess)
        if found >= 0:
            guess = found + 1
            order.ideal.kind = flow.ideal[found].kind
            if order.price != order.ideal.price and order.ideal.kind != Kind.ENTRY:
                flow.settled = False
            if not (requote and worth_moving(flow, order, &flow.ideal[found], found == nearest)):
                flow.taken[found] = True
                continue
        queue_cancel(flow, order)

    for i in range(n):
        if flow.taken[i]:
            continue
        if is_refused(flow, &flow.ideal[i]):
            flow.settled = False
            continue
        queue = &flow.queues[0 if flow.ideal[i].side > 0 else 1]
        queue.creates[queue.n_creates] = flow.ideal[i]
        queue.nearest[queue.n_creates] = i == nearest
        queue.n_creates += 1

    for row in range(2):
        queue = &flow.queues[row]
        if queue.on_its_way > 0 or queue.n_cancels > 0:
            flow.settled = False
    flow_release(flow)


cdef void flow_plan(Flow* flow) noexcept nogil:
    # A plan between requotes: after fills, or because a stop is due.
    plan_and_send(flow, False)


cdef bint requote_is_idle(const Flow* flow) noexcept nogil:
    # In position a plan depends on the account, on whether the last price lies beyond a stop level
    # and, for re-entries that wait, on how far it is from them. If none of that has changed since
    # all was settled, the plan need not be made.
    cdef const View* v = &flow.view
    cdef int i, row
    if not flow.settled or v.size == 0.0:
        return False
    row = 0 if v.size > 0.0 else 1
    if (flow.beyond != 0) != (
        stop_reached(1 if v.size > 0.0 else -1, v.last_price, flow.levels) != 0
    ):
        return False
    for i in range(flow.queues[row].n_creates):
        if not too_far(flow, &flow.queues[row].creates[i]):
            return False
    return True


cdef void flow_requote(Flow* flow) noexcept nogil:
    # The requote time: refused slots are free again, stops may start, an outstanding one follows.
    cdef View* v = &flow.view
    cdef int64_t side = 1 if v.size > 0.0 else -1
    cdef double least
    flow.n_refused = 0
    flow.armed = True
    if v.stop_qty > 0.0 and flow.stop_id == 0:
        if stop_reached(side, v.last_price, flow.levels):
            v.stop_price = v.ask if side > 0 else v.bid
            # What a partial fill has left over may be less than the venue takes.
            least = min(min_order_qty(v.stop_price, &flow.market), fabs(v.size))
            if v.stop_qty < least:
                v.stop_qty = least
        else:
            end_stop(flow)
    if not requote_is_idle(flow):
        plan_and_send(flow, True)


# --- doors ------------------------------------------------------------------------------------

FLOW_RULES_DTYPE = np.dtype([
    ("requote_tolerance", "<f8"), ("requote_ms", "<i8"), ("orders_per_batch", "<i8"),
    ("market_stop_loss", "<i8"),
])
MESSAGE_DTYPE = np.dtype([
    ("what", "<i8"), ("id", "<i8"), ("side", "<i8"), ("price", "<f8"), ("qty", "<f8"),
    ("reduce_only", "<i8"),
])
LIVE_DTYPE = np.dtype([
    ("id", "<i8"), ("state", "<i8"), ("at_market", "<i8"), ("price", "<f8"), ("qty", "<f8"),
    ("ideal", _ORDER_DTYPE),
])
if (
    sizeof(FlowRules) != FLOW_RULES_DTYPE.itemsize or sizeof(Message) != MESSAGE_DTYPE.itemsize
    or sizeof(Live) != LIVE_DTYPE.itemsize
):
    raise ImportError("passivx._core.flow: a struct and its dtype disagree")


cdef class OrderFlow:
    """The order flow for a driver in Python: tell it what happens, send what it returns.

    ``plan``, ``requote`` and ``release`` return messages, MESSAGE_DTYPE, shape (n,), to be sent in
    that order: ``what`` is a `What`, ``id`` our number of the order, ``price`` and ``qty`` as the
    venue gets them. A plan is due when ``due`` says so, after all that one moment brought.

    Parameters
    ----------
    strategy, market, rules : ndarrays of STRATEGY_DTYPE, MARKET_DTYPE, FLOW_RULES_DTYPE, shape (1,)
    wallet : float
        Settle currency, finite.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    cdef Flow* _flow

    def __cinit__(self):
        self._flow = <Flow*>calloc(1, sizeof(Flow))
        if self._flow is NULL:
            raise MemoryError

    def __init__(
        self, const Strategy[::1] strategy, const Market[::1] market, const FlowRules[::1] rules,
        *, double wallet,
    ):
        if not strategy.shape[0] == market.shape[0] == rules.shape[0] == 1:
            raise ValueError("strategy, market and rules must be one record each")
        if not 1 <= rules[0].orders_per_batch <= 50:
            raise ValueError(
                f"orders_per_batch must be in [1, 50], was {rules[0].orders_per_batch}")
        if not isfinite(wallet):
            raise ValueError(f"wallet must be finite, was {wallet}")
        flow_free(self._flow)
        flow_start(self._flow, &strategy[0], &market[0], &rules[0], wallet)

    def __dealloc__(self):
        if self._flow is not NULL:
            flow_free(self._flow)
        free(self._flow)

    @property
    def due(self):
        """Whether a plan is due: fills, a stop level reached, or the first plan."""
        return self._flow.due

    def see_market(
        self, *, double last_price, double bid, double ask, double ema, double funding_rate=NAN,
    ):
        """Show the market as it is now; prices > 0, the funding rate NaN when it is not known."""
        cdef View* v = &self._flow.view
        for name, price in (("last_price", last_price), ("bid", bid), ("ask", ask), ("ema", ema)):
            if not 0.0 < price < INFINITY:
                raise ValueError(f"{name} must be finite and > 0, was {price}")
        v.last_price, v.bid, v.ask, v.ema = last_price, bid, ask, ema
        v.funding_rate = funding_rate

    def account(
        self, *, double wallet, double equity, double size, double entry_price, double liq_price,
    ):
        """Take in the account after a fill (before `filled`) or a funding."""
        if not (isfinite(wallet) and isfinite(equity) and isfinite(size) and liq_price >= 0.0):
            raise ValueError("wallet, equity and size must be finite, liq_price >= 0")
        if size != 0.0 and not 0.0 < entry_price < INFINITY:
            raise ValueError(f"entry_price must be finite and > 0, was {entry_price}")
        flow_account(self._flow, wallet, equity, size, entry_price, liq_price)

    def print(self, double price):
        """Take in a trade, after its own fills; any of them can reach a stop level."""
        flow_print(self._flow, price)

    def filled(self, int64_t id, double qty):
        """Take in a fill of one of our orders, qty > 0, and return its Kind (0: not ours)."""
        return flow_filled(self._flow, id, qty)

    def placed(self, int64_t id):
        """Take in that an order rests."""
        flow_placed(self._flow, id)

    def refused(self, int64_t id, *, bint would_take):
        """Take in that the venue refused an order; a post-only one waits for the next requote."""
        flow_refused(self._flow, id, would_take)
        if self._flow.out_of_memory:
            raise MemoryError

    def gone(self, int64_t id):
        """Take in that the venue no longer has an order."""
        flow_gone(self._flow, id)

    def arrived(self, const Message[::1] messages):
        """Take in that messages have reached the venue, whatever came of them."""
        cdef Py_ssize_t i
        for i in range(messages.shape[0]):
            flow_arrived(self._flow, &messages[i])

    def plan(self):
        """Plan, and return what is to be sent now."""
        self._seen()
        flow_plan(self._flow)
        return self._outbox()

    def requote(self):
        """Return what is to be sent at a requote time."""
        self._seen()
        flow_requote(self._flow)
        return self._outbox()

    def release(self):
        """Return what the messages that have arrived since allow to be sent now."""
        self._seen()
        flow_release(self._flow)
        return self._outbox()

    @property
    def live(self):
        """Orders the venue has or is about to have, oldest first: LIVE_DTYPE, shape (n,)."""
        cdef Live[::1] orders
        cdef int i
        out = np.zeros(self._flow.n_live, LIVE_DTYPE)
        orders = out
        for i in range(self._flow.n_live):
            orders[i] = self._flow.live[i]
        return out

    @property
    def close_base(self):
        """The size the close grid was built from: the one number the venue cannot tell."""
        return self._flow.view.close_base

    cdef _seen(self):
        if not self._flow.view.last_price > 0.0:
            raise ValueError("see_market must come first: a plan needs prices")

    cdef _outbox(self):
        cdef Message[::1] messages
        cdef int i
        out = np.zeros(self._flow.n_outbox, MESSAGE_DTYPE)
        messages = out
        for i in range(self._flow.n_outbox):
            messages[i] = self._flow.outbox[i]
        self._flow.n_outbox = 0
        return out
