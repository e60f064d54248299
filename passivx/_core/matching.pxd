# The venue's side of the rules: what fills, at what fee, and what it does to the account.
from libc.stdint cimport int64_t
from passivx._core.types cimport Market, Tier

cdef enum:
    MAX_RESTING = 1024         # orders a side; the order flow never has as many

cpdef enum FillMode:           # when a print fills a resting order
    CROSS = 0                  # it trades through it
    TOUCH = 1                  # or at its price
    VOLUME = 2                 # as much as the print brings

cdef enum Answer:              # to a message, and to "what does this print do next?"
    NOTHING = 0
    FILLED = 1
    LIQUIDATED = 2             # the end
    RESTS = 3
    WOULD_TAKE = 4             # refused: post-only
    WOULD_NOT_REDUCE = 5       # refused: reduce-only, without a position to reduce

cdef struct Book:              # one price a side, from the prints alone
    double bid
    double ask
    double last

cdef struct Touch:             # the book on the price grid: what planner and venue see
    double bid
    double ask

cdef struct Account:           # settle currency
    double wallet
    double equity              # wallet + open pnl, as of the last fill or funding
    double size                # signed: short < 0
    double entry_price         # average; 0 when flat
    double liq_price           # 0 = none

cdef struct Resting:           # an order in the venue's book
    int64_t id
    double price
    double qty                 # what is left of it
    int64_t reduce_only

cdef struct Execution:         # one fill, or the liquidation
    int64_t id                 # of the order; 0 for a liquidation, -1 for a reduction by the venue
    int64_t position_side      # before it; of the new position when flat
    double price
    double qty                 # signed
    double pnl
    double fee                 # negative when paid
    int64_t turned             # 1: the position is gone or has changed side

cdef struct Print:             # a trade on its way through the resting orders
    double price
    int64_t side               # of the orders it hits: +1 buys (its buyer was maker), -1 sells
    double left                # volume: quantity steps not yet used up
    double left_at_price       # volume: of those, what orders at the very price may have

cdef struct Venue:
    Market market
    const Tier* tiers
    Py_ssize_t n_tiers
    double leverage            # the venue's, a whole number
    double liquidation_fee     # rate on top of the taker fee
    double queue_share         # volume: share of a print at our price that is ours
    int64_t cross_mode
    int64_t fill_mode          # FillMode
    Book book
    Account account
    double fixed_at            # the price of the fill or funding that fixed the liquidation price
    Resting[2][MAX_RESTING] orders   # row 0 buys, row 1 sells; best first, then oldest first
    Py_ssize_t[2] n_orders
    double[2] carried          # volume: quantity steps < 1 that a share at our price left over

cdef void book_start(Book* book, double price, const Market* market) noexcept nogil
cdef void book_print(
    Book* book, double price, bint buyer_maker, const Market* market) noexcept nogil
cdef Touch touch_of(const Book* book, const Market* market) noexcept nogil
cdef double open_pnl(const Venue* venue, double price) noexcept nogil
cdef void fix_levels(Venue* venue, double price) noexcept nogil
cdef void apply_fill(
    Venue* venue, int64_t side, double price, double qty, double fee_rate, Execution* out
) noexcept nogil
cdef Print take_print(
    Venue* venue, double price, double qty, bint buyer_maker) noexcept nogil
cdef Answer next_fill(Venue* venue, Print* p, Execution* out) noexcept nogil
cdef Answer place(
    Venue* venue, const Resting* order, int64_t side, bint at_market, Execution* out) noexcept nogil
cdef bint cancel(Venue* venue, int64_t id, int64_t side) noexcept nogil
cdef int64_t drop_order(Venue* venue, const Execution* ex) noexcept nogil
cdef double settle_funding(Venue* venue, double rate) noexcept nogil
cdef double fill_trigger(const Venue* venue, int64_t side) noexcept nogil
