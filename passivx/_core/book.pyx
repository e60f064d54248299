"""A venue's order book, kept from its stream of changes, and the rules that tell when to trust it.

A book is in step with the stream or it is empty: what breaks the chain of events, or leaves a bid
at or above an ask, discards every level until the next snapshot. Facts about the chains: the
protocol facts of both venues (Binance's local book algorithm, Bybit's orderbook topics).
"""

from enum import IntEnum

import numpy as np

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memmove
from passivx._core.decimals cimport POWERS_OF_TEN


cdef struct Level:             # LEVEL_DTYPE
    double price
    double qty


cdef struct Half:              # one side, worst first: most changes are near its end
    double side                # +1 bids, -1 asks
    Level* levels
    Py_ssize_t n
    Py_ssize_t room


cdef enum:
    EVENT_APPLIED
    EVENT_DROPPED
    EVENT_GAP
    EVENT_CROSSED


class BookEvent(IntEnum):
    """What became of an event.

    APPLIED  the book has it
    DROPPED  it is older than the snapshot
    GAP      it does not follow the one before, or there is no snapshot: the book is empty
    CROSSED  it left a bid at or above an ask: the book is empty
    """

    APPLIED = EVENT_APPLIED
    DROPPED = EVENT_DROPPED
    GAP = EVENT_GAP
    CROSSED = EVENT_CROSSED


LEVEL_DTYPE = np.dtype([("price", "<f8"), ("qty", "<f8")])
if sizeof(Level) != LEVEL_DTYPE.itemsize:
    raise ImportError("passivx._core.book: Level and LEVEL_DTYPE disagree")


# --- levels -----------------------------------------------------------------------------------

cdef inline Py_ssize_t place_of(const Half* half, double price) noexcept nogil:
    # Index of the first level that is not worse than this price.
    cdef double key = half.side * price
    cdef Py_ssize_t low = 0, high = half.n, step = 1, middle
    # From the best level in growing strides, then halving: most changes are near the best.
    while step <= high:
        if half.side * half.levels[high - step].price < key:
            low = high - step + 1
            break
        high -= step
        step *= 2
    while low < high:
        middle = (low + high) // 2
        if half.side * half.levels[middle].price < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef void set_level(Half* half, double price, double qty, Py_ssize_t most) noexcept nogil:
    # qty 0 removes. There is room for one more level; past `most` the worst one goes.
    cdef Level* levels = half.levels
    cdef Py_ssize_t at = place_of(half, price)
    if at < half.n and levels[at].price == price:
        if qty > 0.0:
            levels[at].qty = qty
        else:
            memmove(&levels[at], &levels[at + 1], (half.n - at - 1) * sizeof(Level))
            half.n -= 1
    elif qty > 0.0:
        if half.n < most:
            memmove(&levels[at + 1], &levels[at], (half.n - at) * sizeof(Level))
            half.n += 1
        elif at == 0:
            return
        else:
            at -= 1
            memmove(&levels[0], &levels[1], at * sizeof(Level))
        levels[at].price = price
        levels[at].qty = qty


cdef void set_levels(Half* half, const Half* heard, Py_ssize_t most) noexcept nogil:
    # In their order, of which the last word on a price holds; but a snapshot, which comes best
    # first and without a price twice, from its worst: there a book grows at its end.
    cdef Py_ssize_t i
    cdef bint falls = half.n == 0
    for i in range(1, heard.n):
        falls = falls and (
            half.side * heard.levels[i].price < half.side * heard.levels[i - 1].price)
    for i in range(heard.n):
        if falls:
            set_level(
                half, heard.levels[heard.n - 1 - i].price, heard.levels[heard.n - 1 - i].qty, most)
        else:
            set_level(half, heard.levels[i].price, heard.levels[i].qty, most)


cdef int make_room(Half* half, Py_ssize_t n) except -1:
    # For n levels in all.
    cdef Level* levels
    if n > half.room:
        n = max(n, 2 * half.room, 64)
        levels = <Level*>PyMem_Realloc(half.levels, n * sizeof(Level))
        if levels is NULL:
            raise MemoryError
        half.levels, half.room = levels, n
    return 0


# --- what the venues send ---------------------------------------------------------------------

cdef double number(str name, object given) except? -1.0:
    # A venue's decimal text, or a number; the double that the text parses to.
    cdef const char* at
    cdef const char* stop
    cdef Py_ssize_t size
    cdef uint64_t mantissa = 0
    cdef int digits = 0, point = -1
    cdef double value
    if isinstance(given, float):
        value = given
    elif isinstance(given, str):
        at = PyUnicode_AsUTF8AndSize(given, &size)
        stop = at + size
        while at < stop:
            if c"0" <= at[0] <= c"9":
                if digits < 20:
                    mantissa = mantissa * 10 + <uint64_t>(at[0] - c"0")
                digits += 1
            elif at[0] == c"." and point < 0:
                point = digits
            else:
                digits = 0
                break
            at += 1
        if digits == 0:
            raise ValueError(f"{name} must be a plain decimal number, was {given!r:.40}")
        # A whole number and a power of ten that doubles hold, once divided, round correctly.
        if digits <= 15:
            value = <double>mantissa / POWERS_OF_TEN[digits - point if point >= 0 else 0]
        else:
            value = float(given)
    else:
        raise ValueError(f"{name} must be a decimal text or a float, was {type(given).__name__}")
    if not 0.0 <= value < INFINITY:
        raise ValueError(f"{name} must be finite and >= 0, was {value}")
    return value


cdef int read_levels(Half* out, object levels) except -1:
    # Levels in the venue's order, checked; nothing is known of their order.
    cdef Level level
    cdef const double[:, ::1] table
    cdef Py_ssize_t i
    out.n = 0
    if isinstance(levels, np.ndarray):
        table = levels
        if table.shape[1] != 2:
            raise ValueError(f"levels must be of shape (n, 2), were (n, {table.shape[1]})")
        make_room(out, table.shape[0])
        for i in range(table.shape[0]):
            level.price, level.qty = table[i, 0], table[i, 1]
            if not (0.0 < level.price < INFINITY and 0.0 <= level.qty < INFINITY):
                raise ValueError(
                    f"levels must have a price > 0 and a qty >= 0, both finite, had "
                    f"{level.price} and {level.qty}")
            out.levels[i] = level
        out.n = table.shape[0]
        return 0
    if not isinstance(levels, (list, tuple)):
        raise ValueError(f"levels must be a list of pairs, was {type(levels).__name__}")
    make_room(out, len(levels))
    for pair in levels:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise ValueError(f"a level must be a pair of price and qty, was {pair!r:.60}")
        level.price = number("price", pair[0])
        level.qty = number("qty", pair[1])
        if level.price == 0.0:
            raise ValueError("price must be > 0, was 0")
        out.levels[out.n] = level
        out.n += 1
    return 0


cdef class L2Book:
    """Bids and asks of one symbol.

    Levels come as the venue sends them, lists of (price, qty) whose members are decimal texts or
    floats, or as float64 arrays of shape (n, 2). Quantities are absolute and 0 removes. An event is
    taken in whole or, when it raises ValueError because a level is none, not at all.

    Parameters
    ----------
    max_levels : int
        On a side, >= 1; past it the worst ones are forgotten, so that `depth` is to be trusted no
        deeper than what changes have since been heard of.
    """

    cdef Half[2] _halves       # bids, asks
    cdef Half[2] _heard        # of the event at hand
    cdef Py_ssize_t _most
    cdef bint _linked          # Binance: an event has followed the snapshot
    cdef readonly bint in_step
    cdef readonly int64_t update_id

    def __cinit__(self):
        self._halves[0].side = self._heard[0].side = 1.0
        self._halves[1].side = self._heard[1].side = -1.0

    def __init__(self, Py_ssize_t max_levels=10_000):
        if max_levels < 1:
            raise ValueError(f"max_levels must be >= 1, was {max_levels}")
        self._most = max_levels
        self._discard()

    def __dealloc__(self):
        cdef int row
        for row in range(2):
            PyMem_Free(self._halves[row].levels)
            PyMem_Free(self._heard[row].levels)

    def snapshot(self, bids, asks, int64_t update_id):
        """Replace every level: APPLIED, or CROSSED.

        ``update_id`` is Binance's lastUpdateId, Bybit's u.
        """
        self._hear(bids, asks)
        self._discard()
        return self._apply(update_id)

    def on_binance(
        self, int64_t first_id, int64_t last_id, int64_t previous_id, bids, asks
    ):
        """Take in an event of the diff stream: its U, u and pu.

        Before the first one that is applied, events with u < the snapshot's id are DROPPED, and the
        first must have U <= that id <= u. Each later one must have pu equal to u of the one before;
        its U says nothing on futures.
        """
        if not self.in_step:
            return BookEvent.GAP
        if not self._linked and last_id < self.update_id:
            return BookEvent.DROPPED
        if last_id < first_id or (
            previous_id != self.update_id if self._linked else first_id > self.update_id
        ):
            self._discard()
            return BookEvent.GAP
        self._hear(bids, asks)
        self._linked = True
        return self._apply(last_id)

    def on_bybit(self, int64_t update_id, bids, asks, *, bint snapshot):
        """Take in a message of an orderbook topic, a snapshot or a delta: its u.

        A snapshot replaces the book at any time, and u = 1 is one (the service has restarted). A
        delta must have the u after the last one's.
        """
        if snapshot or update_id == 1:
            return self.snapshot(bids, asks, update_id)
        if not self.in_step or update_id != self.update_id + 1:
            self._discard()
            return BookEvent.GAP
        self._hear(bids, asks)
        return self._apply(update_id)

    def discard(self):
        """Forget every level, as when the connection was lost: out of step until a snapshot."""
        self._discard()

    def depth(self, Py_ssize_t n):
        """Return the best n (>= 0) levels of bids and asks: LEVEL_DTYPE, best first, both <= n."""
        if n < 0:
            raise ValueError(f"n must be >= 0, was {n}")
        return self._best(0, n), self._best(1, n)

    cdef int _hear(self, bids, asks) except -1:
        read_levels(&self._heard[0], bids)
        read_levels(&self._heard[1], asks)
        make_room(&self._halves[0], self._halves[0].n + self._heard[0].n)
        make_room(&self._halves[1], self._halves[1].n + self._heard[1].n)
        return 0

    cdef object _apply(self, int64_t update_id):
        set_levels(&self._halves[0], &self._heard[0], self._most)
        set_levels(&self._halves[1], &self._heard[1], self._most)
        if self._top(0).price >= self._top(1).price:
            self._discard()
            return BookEvent.CROSSED
        self.in_step = True
        self.update_id = update_id
        return BookEvent.APPLIED

    cdef void _discard(self) noexcept:
        self._halves[0].n = self._halves[1].n = 0
        self._linked = self.in_step = False
        self.update_id = -1

    cdef Level _top(self, int row) noexcept:
        cdef Level none
        cdef Half* half = &self._halves[row]
        if half.n > 0:
            return half.levels[half.n - 1]
        none.price, none.qty = NAN, 0.0
        return none

    cdef _best(self, int row, Py_ssize_t n):
        cdef Half* half = &self._halves[row]
        cdef Level[::1] levels
        cdef Py_ssize_t i
        n = min(n, half.n)
        out = np.empty(n, LEVEL_DTYPE)
        levels = out
        for i in range(n):
            levels[i] = half.levels[half.n - 1 - i]
        return out

    @property
    def bid(self):
        """Best bid; NaN when there is none."""
        return self._top(0).price

    @property
    def bid_qty(self):
        """Quantity at the best bid; 0 when there is none."""
        return self._top(0).qty

    @property
    def ask(self):
        """Best ask; NaN when there is none."""
        return self._top(1).price

    @property
    def ask_qty(self):
        """Quantity at the best ask; 0 when there is none."""
        return self._top(1).qty
