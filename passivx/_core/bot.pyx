"""The bot's half of a venue and a bot: market, account and order flow of one symbol.

The live engine drives it as the exact engine drives its own: each trade, fill and answer goes in as
it is heard, and what is to be sent comes out. The account follows the fills by the venue's own
arithmetic (`matching`), so that a plan does not wait for the venue to tell what it already knows.
"""

from libc.math cimport INFINITY, fabs, isfinite
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from passivx._core.ema cimport Ema, ema_start, ema_update
from passivx._core.flow cimport (
    Flow, FlowRules, Live, LiveState, Message, What, flow_account, flow_arrived, flow_filled,
    flow_free, flow_gone, flow_kept, flow_placed, flow_plan, flow_print, flow_refused,
    flow_release, flow_requote, flow_start, flow_take_over, stop_trigger,
)
from passivx._core.matching cimport (
    Book, Execution, Touch, Venue, apply_fill, book_print, book_start, fix_levels, open_pnl,
    touch_of,
)
from passivx._core.types cimport Market, Order, Strategy, Tier, View


cdef class Bot:
    """Market, account and orders of one symbol, as the bot knows them.

    Messages come out as tuples (what, id, side, price, qty, reduce_only, kind, ideal_price,
    ideal_qty), in the order they are to be sent: ``what`` is a `flow.What`, ``id`` our number of
    the order, ``kind`` a `types.Kind`. ``due`` says when to plan.

    Parameters
    ----------
    strategy, market, rules : ndarrays of STRATEGY_DTYPE, MARKET_DTYPE, FLOW_RULES_DTYPE, shape (1,)
    tiers : ndarray of TIER_DTYPE, shape (n,), n >= 1
    wallet : float
        Settle currency.
    price, ema : float
        Last price, and the tick EMA so far; > 0.
    span : float
        Of the EMA, >= 1.
    leverage : float
        The venue's, >= 1.
    quoted : bool
        Best bid and ask come by `quote`; else they are made of the trades, as in a backtest.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    cdef Flow* _flow
    cdef Venue* _venue         # without orders: those are the real venue's
    cdef const Tier[::1] _tiers
    cdef Ema _ema
    cdef bint _quoted          # quotes count
    cdef bint _has_quote       # one has come, and still holds
    cdef double _untested      # the last trade, whose own fills may still come; 0 = none

    def __cinit__(self):
        self._flow = <Flow*>calloc(1, sizeof(Flow))
        self._venue = <Venue*>calloc(1, sizeof(Venue))
        if self._flow is NULL or self._venue is NULL:
            raise MemoryError

    def __init__(
        self, const Strategy[::1] strategy, const Market[::1] market, const FlowRules[::1] rules,
        const Tier[::1] tiers, *, double wallet, double price, double ema, double span,
        double leverage, bint cross_mode, bint quoted,
    ):
        if not strategy.shape[0] == market.shape[0] == rules.shape[0] == 1 or not tiers.shape[0]:
            raise ValueError("strategy, market and rules must be one record each, tiers some")
        if not 1 <= rules[0].orders_per_batch <= 50:
            raise ValueError(
                f"orders_per_batch must be in [1, 50], was {rules[0].orders_per_batch}")
        if not isfinite(wallet):
            raise ValueError(f"wallet must be finite, was {wallet}")
        _priced("price", price)
        _priced("ema", ema)
        if not (1.0 <= span < INFINITY and 1.0 <= leverage < INFINITY):
            raise ValueError(f"span and leverage must be >= 1, were {span} and {leverage}")
        flow_free(self._flow)
        flow_start(self._flow, &strategy[0], &market[0], &rules[0], wallet)
        self._tiers = tiers
        self._venue.tiers, self._venue.n_tiers = &tiers[0], tiers.shape[0]
        self._venue.market = market[0]
        self._venue.leverage, self._venue.cross_mode = leverage, cross_mode
        self._venue.account.wallet = self._venue.account.equity = wallet
        book_start(&self._venue.book, price, &market[0])
        ema_start(&self._ema, price, span)
        self._ema.value = ema
        self._quoted = quoted
        self._has_quote = False
        self._untested = 0.0
        self._see()

    def __dealloc__(self):
        if self._flow is not NULL:
            flow_free(self._flow)
        free(self._flow)
        free(self._venue)

    # --- the market ---

    def trade(self, double price, bint buyer_maker, bint after_quote=False):
        """Take in a trade of the tape; True when a plan is due, or may be after its own fills.

        It is tested against the stop levels once those are in: at the next trade, or by `settle`.
        One that came ``after_quote`` and lies outside it shows that the book has moved since.
        """
        cdef bint reaches
        cdef View* v = &self._flow.view
        cdef Touch touch
        cdef Book book
        if not 0.0 < price < INFINITY:
            raise ValueError(f"price must be finite and > 0, was {price}")
        self._test()
        book_print(&self._venue.book, price, buyer_maker, &self._venue.market)
        ema_update(&self._ema, price)
        if after_quote and v.bid > 0.0 and not v.bid <= price <= v.ask:
            book.bid, book.ask = v.bid, v.ask
            book_print(&book, price, buyer_maker, &self._venue.market)
            touch = touch_of(&book, &self._venue.market)
            v.bid, v.ask = touch.bid, touch.ask
        self._see()
        self._untested = price
        if self._flow.view.size > 0.0:
            reaches = price <= stop_trigger(self._flow)
        else:
            reaches = self._flow.view.size != 0.0 and price >= stop_trigger(self._flow)
        return reaches or self._flow.due

    def settle(self):
        """End a moment: all fills of the last trade are in. Return whether a plan is due."""
        self._test()
        return self._flow.due

    def quote(self, double bid, double ask):
        """Take in best bid and ask, 0 < bid < ask; not used when trades make them."""
        if not 0.0 < bid < ask < INFINITY:
            raise ValueError(f"must be 0 < bid < ask, were {bid} and {ask}")
        if self._quoted:
            self._has_quote = True
            self._flow.view.bid, self._flow.view.ask = bid, ask

    def unquoted(self):
        """Make bid and ask of the trades until the next quote: the last one may not hold."""
        self._has_quote = False
        self._see()

    def rules(self, const Market[::1] market, const Tier[::1] tiers, *, double leverage):
        """Go by these rules of the venue from now on; the levels are fixed again."""
        if market.shape[0] != 1 or not tiers.shape[0] or not 1.0 <= leverage < INFINITY:
            raise ValueError("market must be one record, tiers some, leverage >= 1")
        if market[0].inverse != self._venue.market.inverse:
            raise ValueError("the contract changed its kind: start anew")
        self._tiers = tiers
        self._venue.tiers, self._venue.n_tiers = &tiers[0], tiers.shape[0]
        self._venue.market = market[0]
        self._venue.leverage = leverage
        self._flow.market = market[0]
        fix_levels(self._venue, self._venue.book.last)
        self._tell()
        self._flow.due = True

    def funding_rate(self, double rate):
        """Take in the rate predicted for the next funding; NaN when it is not known."""
        self._flow.view.funding_rate = rate

    # --- the account ---

    def fill(self, int64_t id, int side, double price, double qty, double fee_rate, fee=None):
        """Book a fill, of order ``id`` (0: of nobody we know), and return (kind, pnl, fee).

        The fee is what the rate makes of it unless the venue's is given; negative when paid.
        """
        cdef Execution ex
        cdef double told = 0.0 if fee is None else fee
        if not (0.0 < price < INFINITY and 0.0 < qty < INFINITY) or side not in (1, -1):
            raise ValueError(
                f"price and qty must be finite and > 0, side must be 1 or -1: "
                f"{price}, {qty}, {side}")
        if not (isfinite(fee_rate) and isfinite(told)):
            raise ValueError(f"fee_rate and fee must be finite, were {fee_rate} and {fee}")
        apply_fill(self._venue, side, price, qty, fee_rate, &ex)
        if fee is not None:
            self._venue.account.wallet = self._venue.account.wallet - ex.fee + told
            ex.fee = told
            fix_levels(self._venue, price)
        self._tell()
        return flow_filled(self._flow, id, qty), ex.pnl, ex.fee

    def credit(self, int64_t id, double qty):
        """Learn that a fill booked before was of this order; return its kind."""
        return flow_filled(self._flow, id, qty)

    def pay(self, double amount):
        """Book a funding payment, negative when paid."""
        if not isfinite(amount):
            raise ValueError(f"amount must be finite, was {amount}")
        self._test()
        self._venue.account.wallet = self._venue.account.wallet + amount
        fix_levels(self._venue, self._venue.book.last)
        self._tell()

    def adopt(self, *, wallet=None, size=None, entry_price=None, liq_price=None):
        """Take over what the venue says of the account; what is None stays as it is.

        Without ``liq_price`` it is computed anew; it stays until the next fill or payment.
        """
        cdef Venue* v = self._venue
        cdef double new_wallet = v.account.wallet if wallet is None else wallet
        cdef double new_size = v.account.size if size is None else size
        cdef double new_entry = v.account.entry_price
        cdef double new_liq = 0.0 if liq_price is None else liq_price
        if size is not None:
            new_entry = 0.0 if entry_price is None or new_size == 0.0 else entry_price
        # All of it, or nothing.
        if not isfinite(new_wallet):
            raise ValueError(f"wallet must be finite, was {wallet}")
        if not isfinite(new_size) or (new_size != 0.0 and not 0.0 < new_entry < INFINITY):
            raise ValueError(
                f"size must be finite, entry_price finite and > 0: {size}, {entry_price}")
        if not 0.0 <= new_liq < INFINITY:
            raise ValueError(f"liq_price must be finite and >= 0, was {liq_price}")
        v.account.wallet = new_wallet
        v.account.size = new_size
        v.account.entry_price = new_entry
        fix_levels(v, v.book.last)
        if liq_price is not None:
            v.account.liq_price = new_liq
        self._tell()
        if size is not None:
            self._flow.due = True

    def close_base_is(self, double size):
        """Set the size that the close grid was built from, as an earlier run knew it."""
        self._flow.view.close_base = fabs(size)

    # --- orders ---

    def take_over(
        self, int side, double price, double qty, *, bint reduce_only, int kind,
        double ideal_price, double ideal_qty, bint rests=True,
    ):
        """Take over an order that an earlier run has sent, and return its number from now on."""
        cdef Order ideal
        cdef int64_t id
        ideal.side, ideal.price, ideal.qty = side, ideal_price, ideal_qty
        ideal.reduce_only, ideal.kind = reduce_only, kind
        id = flow_take_over(
            self._flow, &ideal, price, qty, LiveState.IN_BOOK if rests else LiveState.SENT)
        if id == 0:
            raise MemoryError("no room for another order")
        self._flow.due = True
        return id

    def placed(self, int64_t id):
        """Take in that an order rests."""
        flow_placed(self._flow, id)

    def kept(self, int64_t id):
        """Take in that the cancel of an order came to nothing: it rests."""
        flow_kept(self._flow, id)

    def refused(self, int64_t id, bint would_take):
        """Take in that an order was refused; with ``would_take`` its slot waits for a requote."""
        flow_refused(self._flow, id, would_take)
        if self._flow.out_of_memory:
            raise MemoryError

    def gone(self, int64_t id):
        """Take in that the venue no longer has an order."""
        flow_gone(self._flow, id)

    def arrived(self, int side, bint at_market):
        """Take in that one message of a side has reached the venue, whatever came of it."""
        cdef Message message
        message.what = What.PLACE_AT_MARKET if at_market else What.PLACE
        message.side = side
        flow_arrived(self._flow, &message)

    # --- planning ---

    def ask_for_plan(self):
        """Have the next moment plan, whatever else happens."""
        self._flow.due = True

    def plan(self):
        """Plan, and return what is to be sent now."""
        self._see()
        flow_plan(self._flow)
        return self._outbox()

    def requote(self):
        """Return what is to be sent at a requote time."""
        self._test()
        self._see()
        flow_requote(self._flow)
        return self._outbox()

    def release(self):
        """Return what the messages that have arrived since allow to be sent now."""
        flow_release(self._flow)
        return self._outbox()

    # --- what it knows ---

    @property
    def due(self):
        """Whether a plan is due."""
        return self._flow.due

    @property
    def account(self):
        """Wallet, equity as of the last fill or payment, size, entry price, liquidation price."""
        a = self._venue.account
        return a.wallet, a.equity, a.size, a.entry_price, a.liq_price

    @property
    def open_pnl(self):
        """Open profit and loss at the last price, settle currency."""
        return open_pnl(self._venue, self._venue.book.last)

    @property
    def market(self):
        """Last price, bid, ask, EMA."""
        v = self._flow.view
        return v.last_price, v.bid, v.ask, v.ema

    @property
    def close_base(self):
        """The size the close grid was built from: the one number the venue cannot tell."""
        return self._flow.view.close_base

    @property
    def live(self):
        """Orders the venue has or is about to have: tuples (id, state, price, qty, ideal price)."""
        cdef int i
        cdef Live* order
        out = []
        for i in range(self._flow.n_live):
            order = &self._flow.live[i]
            out.append((order.id, order.state, order.price, order.qty, order.ideal.price))
        return out

    # --- rooms ---

    cdef void _test(self) noexcept:
        if self._untested > 0.0:
            flow_print(self._flow, self._untested)
            self._untested = 0.0

    cdef void _see(self) noexcept:
        # By trades alone until a quote has come.
        cdef Touch touch
        self._flow.view.last_price = self._venue.book.last
        self._flow.view.ema = self._ema.value
        if not self._has_quote:
            touch = touch_of(&self._venue.book, &self._venue.market)
            self._flow.view.bid, self._flow.view.ask = touch.bid, touch.ask

    cdef void _tell(self) noexcept:
        flow_account(
            self._flow, self._venue.account.wallet, self._venue.account.equity,
            self._venue.account.size, self._venue.account.entry_price,
            self._venue.account.liq_price)

    cdef list _outbox(self):
        cdef Message* message
        cdef const Order* ideal
        cdef int i, k
        out = []
        for i in range(self._flow.n_outbox):
            message = &self._flow.outbox[i]
            # The newest orders are the ones sent.
            k = self._flow.n_live - 1
            while self._flow.live[k].id != message.id:
                k -= 1
            ideal = &self._flow.live[k].ideal
            out.append((
                message.what, message.id, message.side, message.price, message.qty,
                message.reduce_only != 0, ideal.kind, ideal.price, ideal.qty))
        self._flow.n_outbox = 0
        return out


cdef _priced(str name, double price):
    if not 0.0 < price < INFINITY:
        raise ValueError(f"{name} must be finite and > 0, was {price}")
