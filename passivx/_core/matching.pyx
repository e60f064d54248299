"""The fill rule: does this trade fill this resting order, how much, at what fee, and what then?

One venue, one symbol, one account with a one-way position. Backtest, dry-run and the simulated
exchange use it; nothing else decides what fills. docs/backtest.md states the rules (*The book*,
*A print*, *The account*, *Arrival*). Row 0 of a pair stands for buys, row 1 for sells.
"""

import numpy as np

from libc.math cimport INFINITY, fabs, floor, isfinite, nextafter
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset
from passivx._core.formulas cimport (
    average_entry, ceil_steps, ceil_to, cost, floor_steps, grid_near, grid_value, liquidation_price,
    near_to, pnl,
)
from passivx._core.types cimport Market, Step, Tier


# --- the book ---------------------------------------------------------------------------------

cdef inline double just_below(double price, const Market* market) noexcept nogil:
    return grid_value(ceil_steps(price, market.price_step) - 1.0, market.price_step)


cdef inline double just_above(double price, const Market* market) noexcept nogil:
    return grid_value(floor_steps(price, market.price_step) + 1.0, market.price_step)


cdef void book_start(Book* book, double price, const Market* market) noexcept nogil:
    book.bid = just_below(price, market)
    book.ask = just_above(price, market)
    book.last = price


cdef void book_print(
    Book* book, double price, bint buyer_maker, const Market* market
) noexcept nogil:
    book.last = price
    if buyer_maker:
        book.bid = price
        if price >= book.ask:
            book.ask = just_above(price, market)
    else:
        book.ask = price
        if price <= book.bid:
            book.bid = just_below(price, market)


cdef Touch touch_of(const Book* book, const Market* market) noexcept nogil:
    # Prints off the grid, or a price of a single step, must not lead to orders the venue refuses.
    cdef Touch touch
    cdef double bid = floor_steps(book.bid, market.price_step)
    cdef double least
    bid = bid if bid > 1.0 else 1.0
    touch.bid = grid_value(bid, market.price_step)
    touch.ask = ceil_to(book.ask, market.price_step)
    least = grid_value(bid + 1.0, market.price_step)
    if touch.ask < least:
        touch.ask = least
    return touch


# --- the account ------------------------------------------------------------------------------

cdef double open_pnl(const Venue* venue, double price) noexcept nogil:
    cdef const Account* a = &venue.account
    if a.size == 0.0:
        return 0.0
    return pnl(
        1 if a.size > 0.0 else -1, a.entry_price, price, a.size, venue.market.inverse)


cdef inline double position_margin(const Venue* venue) noexcept nogil:
    return cost(
        venue.account.size, venue.account.entry_price, venue.market.inverse) / venue.leverage


cdef void fix_levels(Venue* venue, double price) noexcept nogil:
    # What stays as it is until the next fill or funding; price: of this one.
    cdef Account* a = &venue.account
    venue.fixed_at = price
    a.liq_price = 0.0
    if a.size != 0.0:
        a.liq_price = liquidation_price(
            1 if a.size > 0.0 else -1, fabs(a.size), a.entry_price,
            a.wallet if venue.cross_mode else position_margin(venue),
            venue.tiers, venue.n_tiers, venue.market.inverse)
    a.equity = a.wallet + open_pnl(venue, venue.book.last)


cdef void apply_fill(
    Venue* venue, int64_t side, double price, double qty, double fee_rate, Execution* out
) noexcept nogil:
    cdef Account* a = &venue.account
    cdef int64_t inverse = venue.market.inverse
    cdef int64_t held = 1 if a.size > 0.0 else -1
    cdef double size = near_to(a.size + side * qty, venue.market.qty_step)
    out.pnl = 0.0
    if a.size == 0.0 or held == side:
        a.entry_price = average_entry(fabs(a.size), a.entry_price, qty, price, inverse)
        out.position_side = side
    else:
        out.pnl = pnl(
            held, a.entry_price, price, qty if qty < fabs(a.size) else fabs(a.size), inverse)
        out.position_side = held
        if held * size < 0.0:
            a.entry_price = price
    out.price = price
    out.qty = side * qty
    out.fee = 0.0 - cost(qty, price, inverse) * fee_rate
    out.turned = a.size != 0.0 and not held * size > 0.0
    a.wallet = a.wallet + out.pnl + out.fee
    a.size = size
    if size == 0.0:
        a.entry_price = 0.0
    fix_levels(venue, price)


cdef void liquidate(Venue* venue, Execution* out) noexcept nogil:
    cdef int64_t held = 1 if venue.account.size > 0.0 else -1
    # A level that the price was beyond already when it was fixed is nobody's price.
    liquidate_at(
        venue, held * min(held * venue.account.liq_price, held * venue.fixed_at), out)


cdef void liquidate_at(Venue* venue, double price, Execution* out) noexcept nogil:
    cdef Account* a = &venue.account
    cdef int64_t held = 1 if a.size > 0.0 else -1
    cdef double rate = venue.market.taker_fee + venue.liquidation_fee
    cdef double least = 0.0
    if not venue.cross_mode:
        least = a.wallet - position_margin(venue)
        least = least if least > 0.0 else 0.0
    out.id = 0
    out.position_side = held
    out.price = price
    out.qty = 0.0 - a.size
    out.turned = 1
    out.fee = 0.0 - cost(a.size, price, venue.market.inverse) * rate
    out.pnl = pnl(held, a.entry_price, price, a.size, venue.market.inverse)
    if a.wallet + out.pnl + out.fee < least:
        out.pnl = least - a.wallet - out.fee
        a.wallet = least
    else:
        a.wallet = a.wallet + out.pnl + out.fee
    a.size = 0.0
    a.entry_price = 0.0
    a.liq_price = 0.0
    a.equity = a.wallet


cdef double settle_funding(Venue* venue, double rate) noexcept nogil:
    # Pays the funding of an open position and returns the amount, negative when paid.
    cdef Account* a = &venue.account
    cdef double last = venue.book.last
    cdef double value = a.size / last if venue.market.inverse else a.size * last
    cdef double amount = 0.0 - value * rate
    a.wallet = a.wallet + amount
    fix_levels(venue, last)
    return amount


# --- what fills -------------------------------------------------------------------------------

cdef bint rests_at(const Venue* venue, int row, double price) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(venue.n_orders[row]):
        if venue.orders[row][i].price == price:
            return True
    return False


cdef Print take_print(
    Venue* venue, double price, double qty, bint buyer_maker
) noexcept nogil:
    cdef Print p
    cdef double share
    cdef int row = 0 if buyer_maker else 1
    p.price = price
    p.side = 1 if buyer_maker else -1
    p.left = INFINITY
    p.left_at_price = INFINITY if venue.fill_mode == FillMode.TOUCH else 0.0
    if venue.fill_mode == FillMode.VOLUME:
        p.left = floor_steps(qty, venue.market.qty_step)
        if rests_at(venue, row, price):
            # Prints are often as small as a step: what a share has left over counts at the next.
            share = p.left * venue.queue_share + venue.carried[row]
            p.left_at_price = floor(share)
            venue.carried[row] = share - p.left_at_price
    return p


cdef inline double may_take(const Print* p, double price) noexcept nogil:
    # Quantity steps this print has for an order at this price.
    if p.side * p.price < p.side * price:
        return p.left
    if p.price == price:
        return p.left_at_price if p.left_at_price < p.left else p.left
    return 0.0


cdef inline bint lies_beyond_liquidation(const Venue* venue, double price) noexcept nogil:
    cdef const Account* a = &venue.account
    cdef double held = 1.0 if a.size > 0.0 else -1.0
    return a.size != 0.0 and a.liq_price > 0.0 and held * price <= held * a.liq_price


cdef void remove(Venue* venue, int row, Py_ssize_t at) noexcept nogil:
    cdef Py_ssize_t behind = venue.n_orders[row] - at - 1
    if behind > 0:
        memmove(&venue.orders[row][at], &venue.orders[row][at + 1], behind * sizeof(Resting))
    venue.n_orders[row] -= 1


cdef Answer next_fill(Venue* venue, Print* p, Execution* out) noexcept nogil:
    # The next thing this print does: call it until it answers NOTHING (or LIQUIDATED, the end).
    # Orders and the liquidation level are met in price order.
    cdef int row = 0 if p.side > 0 else 1
    cdef const Account* a = &venue.account
    cdef Resting* best = NULL
    cdef double steps = 0.0
    cdef double qty
    if venue.n_orders[row] > 0:
        best = &venue.orders[row][0]
        steps = may_take(p, best.price)
    # Whatever its side, an order does not fill where the venue has taken the position.
    if lies_beyond_liquidation(venue, best.price) if steps > 0.0 else (
        p.side * a.size > 0.0 and lies_beyond_liquidation(venue, p.price)
    ):
        liquidate(venue, out)
        return Answer.LIQUIDATED
    if not steps > 0.0:
        return Answer.NOTHING
    qty = best.qty
    if best.reduce_only and fabs(a.size) < qty:
        qty = fabs(a.size)
    if grid_near(qty, venue.market.qty_step) > steps:
        qty = grid_value(steps, venue.market.qty_step)
    p.left -= grid_near(qty, venue.market.qty_step)
    if p.price == best.price:
        p.left_at_price -= grid_near(qty, venue.market.qty_step)
    out.id = best.id
    best.qty = near_to(best.qty - qty, venue.market.qty_step)
    apply_fill(venue, p.side, best.price, qty, venue.market.maker_fee, out)
    # Filled, or trimmed to a position that is gone by that.
    if best.qty == 0.0:
        remove(venue, row, 0)
    return Answer.FILLED


cdef double fill_trigger(const Venue* venue, int64_t side) noexcept nogil:
    # A print on the orders of this side fills one of them when side * price < side * trigger.
    cdef int row = 0 if side > 0 else 1
    cdef double price
    if venue.n_orders[row] == 0:
        return -side * INFINITY
    price = venue.orders[row][0].price
    if venue.fill_mode == FillMode.CROSS or (
        venue.fill_mode == FillMode.VOLUME and venue.queue_share == 0.0
    ):
        return price
    return nextafter(price, side * INFINITY)


# --- messages ---------------------------------------------------------------------------------

cdef Answer place(
    Venue* venue, const Resting* order, int64_t side, bint at_market, Execution* out
) noexcept nogil:
    # An order arrives: it rests (post-only), fills at once (at market) or finds the position beyond
    # its liquidation price, or is refused.
    cdef int row = 0 if side > 0 else 1
    cdef Resting* orders = &venue.orders[row][0]
    cdef Py_ssize_t at = venue.n_orders[row]
    cdef Touch touch = touch_of(&venue.book, &venue.market)
    cdef double held = -side * venue.account.size
    cdef double price
    if order.reduce_only and not held > 0.0:
        return Answer.WOULD_NOT_REDUCE
    if at_market:
        price = touch.ask if side > 0 else touch.bid
        if lies_beyond_liquidation(venue, price):
            liquidate(venue, out)
            return Answer.LIQUIDATED
        out.id = order.id
        apply_fill(
            venue, side, price, held if order.reduce_only and held < order.qty else order.qty,
            venue.market.taker_fee, out)
        return Answer.FILLED
    if (order.price >= touch.ask) if side > 0 else (order.price <= touch.bid):
        return Answer.WOULD_TAKE
    while at > 0 and side * orders[at - 1].price < side * order.price:
        at -= 1
    memmove(&orders[at + 1], &orders[at], (venue.n_orders[row] - at) * sizeof(Resting))
    orders[at] = order[0]
    venue.n_orders[row] += 1
    return Answer.RESTS


cdef Py_ssize_t place_of(const Venue* venue, int row, int64_t id) noexcept nogil:
    # Where an order rests in its row; -1 when there is none of that id.
    cdef Py_ssize_t i
    for i in range(venue.n_orders[row]):
        if venue.orders[row][i].id == id:
            return i
    return -1


cdef bint cancel(Venue* venue, int64_t id, int64_t side) noexcept nogil:
    # Takes a resting order out; False when there is none of that id.
    cdef int row = 0 if side > 0 else 1
    cdef Py_ssize_t at = place_of(venue, row, id)
    if at < 0:
        return False
    remove(venue, row, at)
    return True


cdef int64_t drop_order(Venue* venue, const Execution* ex) noexcept nogil:
    # Cancels one order that the venue cancels by itself after an execution that turned the
    # position: a reduce-only one that no longer reduces, after a liquidation any. Returns its id; 0
    # when none is left.
    cdef int row
    cdef int64_t id
    cdef Py_ssize_t i
    for row in range(2):
        if (1 if row else -1) * venue.account.size > 0.0:
            continue
        for i in range(venue.n_orders[row]):
            if venue.orders[row][i].reduce_only or ex.id == 0:
                id = venue.orders[row][i].id
                remove(venue, row, i)
                return id
    return 0


# --- doors ------------------------------------------------------------------------------------

EXECUTION_DTYPE = np.dtype(
    [("id", "<i8"), ("position_side", "<i8")]
    + [(name, "<f8") for name in ("price", "qty", "pnl", "fee")]
    + [("turned", "<i8")]
)
RESTING_DTYPE = np.dtype([("id", "<i8"), ("price", "<f8"), ("qty", "<f8"), ("reduce_only", "<i8")])
ACCOUNT_DTYPE = np.dtype(
    [(name, "<f8") for name in ("wallet", "equity", "size", "entry_price", "liq_price")])
if (
    sizeof(Execution) != EXECUTION_DTYPE.itemsize or sizeof(Resting) != RESTING_DTYPE.itemsize
    or sizeof(Account) != ACCOUNT_DTYPE.itemsize
):
    raise ImportError("passivx._core.matching: a struct and its dtype disagree")


cdef class PaperVenue:
    """One symbol and one account at a venue that is fed with recorded or live trades.

    Parameters
    ----------
    market : ndarray of MARKET_DTYPE, shape (1,)
    tiers : ndarray of TIER_DTYPE, shape (n,), n >= 1
    price : float
        First price; before a side has printed its best price is one step beside it.
    wallet : float
        Settle currency.
    leverage : float
        The venue's, >= 1; decides the margin of an isolated position.
    queue_share : float
        In [0, 1]: with fill_mode VOLUME, the share of a print at an order's price that is ours.
    liquidation_fee : float
        Rate, on top of the taker fee.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    cdef Venue* _venue
    cdef const Tier[::1] _tiers

    def __cinit__(self):
        self._venue = <Venue*>calloc(1, sizeof(Venue))
        if self._venue is NULL:
            raise MemoryError

    def __init__(
        self, const Market[::1] market, const Tier[::1] tiers, *, double price, double wallet,
        double leverage, bint cross_mode=True, int fill_mode=FillMode.CROSS,
        double queue_share=0.0, double liquidation_fee=0.0,
    ):
        cdef Venue* v = self._venue
        _ruled(market, tiers)
        for name, number, least, most in (
            ("price", price, 5e-324, 1e300), ("wallet", wallet, -1e300, 1e300),
            ("leverage", leverage, 1.0, 1e300), ("fill_mode", fill_mode, 0, 2),
            ("queue_share", queue_share, 0.0, 1.0), ("liquidation_fee", liquidation_fee, 0.0, 1.0),
        ):
            if not least <= number <= most:
                raise ValueError(f"{name} must be in [{least:g}, {most:g}], was {number}")
        memset(v, 0, sizeof(Venue))
        self._tiers = tiers
        v.tiers, v.n_tiers = &tiers[0], tiers.shape[0]
        v.market = market[0]
        v.leverage, v.cross_mode = leverage, cross_mode
        v.fill_mode, v.queue_share, v.liquidation_fee = fill_mode, queue_share, liquidation_fee
        v.account.wallet = v.account.equity = wallet
        book_start(&v.book, price, &v.market)

    def __dealloc__(self):
        free(self._venue)

    def print(self, double price, double qty, bint buyer_maker):
        """Take in one trade, price > 0, qty >= 0; neither need be on the market's grid.

        Returns
        -------
        list of (execution, account, cancelled)
            In the order they happened: a record of EXECUTION_DTYPE (id 0 is a liquidation), the
            account after it (ACCOUNT_DTYPE), and the ids of the orders the venue cancelled because
            of it: reduce-only ones when the position was gone, all of them at a liquidation.
        """
        cdef Print p
        cdef Execution ex
        cdef Answer answer
        _priced(price)
        if not 0.0 <= qty < INFINITY:
            raise ValueError(f"qty must be finite and >= 0, was {qty}")
        book_print(&self._venue.book, price, buyer_maker, &self._venue.market)
        p = take_print(self._venue, price, qty, buyer_maker)
        out = []
        answer = next_fill(self._venue, &p, &ex)
        while answer != Answer.NOTHING:
            out.append(self._happened(&ex))
            if answer == Answer.LIQUIDATED:
                break
            answer = next_fill(self._venue, &p, &ex)
        return out

    def place(
        self, int64_t id, int side, double price, double qty, *,
        bint reduce_only=False, bint at_market=False,
    ):
        """Let an order arrive: post-only at ``price``, or at market.

        ``side`` is +1 buy, -1 sell; ``id`` a number > 0 that no other order has; ``price`` (at
        market it does not matter) and ``qty`` > 0 are on the market's grids.

        Returns
        -------
        str, fill
            'rests', 'would_take' or 'would_not_reduce' (both refused) with None; 'filled' or
            'liquidated' with what `print` returns for one of them.
        """
        cdef Resting order
        cdef Execution ex
        cdef Answer answer
        if id <= 0 or (side != 1 and side != -1) or not 0.0 < qty < INFINITY:
            raise ValueError(f"id and qty must be > 0, side 1 or -1, were {id}, {qty}, {side}")
        if not at_market:
            _priced(price)
            _on_grid("price", price, self._venue.market.price_step)
        _on_grid("qty", qty, self._venue.market.qty_step)
        if self._venue.n_orders[0 if side > 0 else 1] == MAX_RESTING:
            raise ValueError(f"at most {MAX_RESTING} orders may rest on a side")
        order.id, order.price, order.qty, order.reduce_only = id, price, qty, reduce_only
        answer = place(self._venue, &order, side, at_market, &ex)
        if answer == Answer.FILLED or answer == Answer.LIQUIDATED:
            return "filled" if answer == Answer.FILLED else "liquidated", self._happened(&ex)
        if answer == Answer.RESTS:
            return "rests", None
        return "would_take" if answer == Answer.WOULD_TAKE else "would_not_reduce", None

    def cancel(self, int64_t id, int side):
        """Take a resting order out; False when there is none of that id on that side."""
        return cancel(self._venue, id, side)

    def settle_funding(self, double rate):
        """Pay one funding of the open position and return the amount, negative when paid."""
        if not isfinite(rate):
            raise ValueError(f"rate must be finite, was {rate}")
        return settle_funding(self._venue, rate) if self._venue.account.size != 0.0 else 0.0

    def set_terms(self, *, leverage=None, cross_mode=None):
        """Change the venue's leverage (>= 1), the margin mode, or both; None leaves one as it is.

        The liquidation price and the equity are fixed again at the last price. ValueError when
        ``leverage`` is out of range; nothing has changed then.
        """
        if leverage is not None:
            if not 1.0 <= leverage <= 1e300:
                raise ValueError(f"leverage must be in [1, 1e+300], was {leverage}")
            self._venue.leverage = leverage
        if cross_mode is not None:
            self._venue.cross_mode = bool(cross_mode)
        fix_levels(self._venue, self._venue.book.last)

    def set_market(self, const Market[::1] market, const Tier[::1] tiers):
        """Change the venue's rules: arguments as of the constructor.

        What rests stays, at prices off the new grid too; levels are fixed again at the last price.

        Raises
        ------
        ValueError
            If the contract would change its kind (``inverse``), or the position or a resting order
            is no multiple of the new quantity step; nothing has changed then.
        """
        cdef Venue* v = self._venue
        cdef int row
        cdef Py_ssize_t i
        _ruled(market, tiers)
        if market[0].inverse != v.market.inverse:
            raise ValueError(
                f"inverse must stay {v.market.inverse}: make a new venue for another contract")
        _on_grid("position", fabs(v.account.size), market[0].qty_step)
        for row in range(2):
            for i in range(v.n_orders[row]):
                _on_grid(
                    f"qty of order {v.orders[row][i].id}", v.orders[row][i].qty,
                    market[0].qty_step)
        self._tiers = tiers
        v.tiers, v.n_tiers = &tiers[0], tiers.shape[0]
        v.market = market[0]
        v.carried[0] = v.carried[1] = 0.0  # parts of a step of the old size
        fix_levels(v, v.book.last)

    def deposit(self, double amount):
        """Add to the wallet without a fill, settle currency; negative takes out.

        The levels are fixed again at the last price. ValueError when ``amount`` is not finite.
        """
        cdef double wallet = self._venue.account.wallet + amount
        if not isfinite(wallet):
            raise ValueError(f"amount must be finite and leave a finite wallet, was {amount}")
        self._venue.account.wallet = wallet
        fix_levels(self._venue, self._venue.book.last)

    def liquidate(self):
        """Take the position away as if its liquidation price had been reached; every order goes.

        At that price, or the last one when there is none. Returns what `print` returns for one
        execution; None when there is no position.
        """
        cdef Execution ex
        if self._venue.account.size == 0.0:
            return None
        if self._venue.account.liq_price > 0.0:
            liquidate(self._venue, &ex)
        else:
            liquidate_at(self._venue, self._venue.book.last, &ex)
        return self._happened(&ex)

    def reduce(self, double qty, double price):
        """Close ``qty`` of the position at ``price`` without a fee (auto-deleveraging).

        Returns what `print` returns for one execution; its id is -1. ValueError when ``qty`` is not
        in (0, position] or not on the grid, or ``price`` is none; it need not be on its grid.
        """
        cdef Execution ex
        cdef double size = self._venue.account.size
        _priced(price)
        if not 0.0 < qty <= fabs(size):
            raise ValueError(f"qty must be in (0, {fabs(size):g}], the position, was {qty}")
        _on_grid("qty", qty, self._venue.market.qty_step)
        ex.id = -1
        apply_fill(self._venue, -1 if size > 0.0 else 1, price, qty, 0.0, &ex)
        return self._happened(&ex)

    def fill(self, int64_t id, int side, double qty):
        """Fill ``qty`` of a resting order at its own price as maker, whatever the tape says.

        A reduce-only order fills at most the position; beyond the liquidation price the position is
        liquidated instead. Returns what `print` returns for one execution. ValueError when there is
        no such order, or ``qty`` is not in (0, what is left of it] or not on the grid.
        """
        cdef Venue* v = self._venue
        cdef int row = 0 if side > 0 else 1
        cdef Py_ssize_t at = place_of(v, row, id)
        cdef Resting* order
        cdef Execution ex
        if at < 0 or not 0.0 < qty <= v.orders[row][at].qty:
            raise ValueError(
                f"qty must be in (0, what is left of a resting order], was {qty} of order {id}")
        order = &v.orders[row][at]
        _on_grid("qty", qty, v.market.qty_step)
        if lies_beyond_liquidation(v, order.price):
            liquidate(v, &ex)
            return self._happened(&ex)
        if order.reduce_only and fabs(v.account.size) < qty:
            qty = fabs(v.account.size)
        ex.id = id
        order.qty = near_to(order.qty - qty, v.market.qty_step)
        apply_fill(v, 1 if side > 0 else -1, order.price, qty, v.market.maker_fee, &ex)
        if order.qty == 0.0:
            remove(v, row, at)
        return self._happened(&ex)

    cdef _happened(self, const Execution* ex):
        cdef Execution[::1] executions
        cdef int64_t id
        out = np.zeros(1, EXECUTION_DTYPE)
        executions = out
        executions[0] = ex[0]
        cancelled = []
        if ex.turned:
            id = drop_order(self._venue, ex)
            while id != 0:
                cancelled.append(id)
                id = drop_order(self._venue, ex)
        return out[0], self.account, cancelled

    @property
    def account(self):
        """Wallet, equity as of the last fill or funding, position: a record of ACCOUNT_DTYPE."""
        cdef Account[::1] accounts
        out = np.zeros(1, ACCOUNT_DTYPE)
        accounts = out
        accounts[0] = self._venue.account
        return out[0]

    @property
    def last(self):
        """Price of the last print; the first price before one."""
        return self._venue.book.last

    @property
    def touch(self):
        """Return best bid and ask on the price grid."""
        cdef Touch touch = touch_of(&self._venue.book, &self._venue.market)
        return touch.bid, touch.ask

    def orders(self, int side):
        """Return the resting orders of a side, best first: RESTING_DTYPE, shape (n,)."""
        cdef int row = 0 if side > 0 else 1
        cdef Resting[::1] orders
        cdef Py_ssize_t i
        out = np.zeros(self._venue.n_orders[row], RESTING_DTYPE)
        orders = out
        for i in range(self._venue.n_orders[row]):
            orders[i] = self._venue.orders[row][i]
        return out


cdef _on_grid(str name, double x, Step step):
    if near_to(x, step) != x:
        raise ValueError(f"{name} must be a multiple of {step.units:g}/{step.scale:g}, was {x}")


cdef _ruled(const Market[::1] market, const Tier[::1] tiers):
    if market.shape[0] != 1 or tiers.shape[0] == 0:
        raise ValueError("market must be one record, tiers at least one")


cdef _priced(double price):
    if not 0.0 < price < INFINITY:
        raise ValueError(f"price must be finite and > 0, was {price}")
