"""The hot market-data frames, read straight from the socket's buffer: no Python object per field.

A scanner takes the usual frame of its symbol and nothing else. Whatever is unusual in it (white
space, an escape, a key twice, a number that is no plain decimal, another symbol, a crossed quote)
is OTHER, and for a JSON decoder to judge; then nothing the scanner holds has changed. Keys may come
in any order after the first, and keys it does not know may be among them.
"""

import sys

import numpy as np

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy
from passivx._core.decimals cimport POWERS_OF_TEN


cdef enum:                     # what a scanner found
    FOUND_OTHER
    FOUND_TRADE
    FOUND_QUOTE

OTHER = FOUND_OTHER
TRADE = FOUND_TRADE
QUOTE = FOUND_QUOTE

cdef enum:
    MOST_NAME = 40
    MOST_TRADES = 1024         # in one message, by Bybit's docs
    MOST_ID = 36               # characters of a trade id, a UUID's
    MOST_DIGITS = 18           # of a number that fits 64 bits whatever they are

ctypedef const unsigned char* Bytes

cdef bint LITTLE_ENDIAN = sys.byteorder == "little"


cdef struct Name:
    Py_ssize_t n
    char[MOST_NAME] at


cdef struct Trade:             # TRADE_DTYPE
    int64_t ts_ms
    double price
    double qty
    int64_t buyer_maker
    int64_t block              # 1: a block trade, off the book
    int64_t seq


TRADE_DTYPE = np.dtype([
    ("ts_ms", "<i8"), ("price", "<f8"), ("qty", "<f8"), ("buyer_maker", "<i8"), ("block", "<i8"),
    ("seq", "<i8"),
])
if sizeof(Trade) != TRADE_DTYPE.itemsize:
    raise ImportError("passivx._core.frames: Trade and TRADE_DTYPE disagree")


# --- tokens: each moves `p` behind what it read, and returns NULL where it cannot -----------------
# Nothing is read at or behind `end`.

cdef inline bint starts(Bytes p, Bytes end, const char* literal, Py_ssize_t n) noexcept nogil:
    return end - p >= n and memcmp(p, literal, n) == 0


cdef inline bint eight_digits(Bytes p, uint64_t* value) noexcept nogil:
    # Eight ASCII digits at once, the first one lowest in memory.
    cdef uint64_t x
    memcpy(&x, p, 8)
    if ((x & <uint64_t>0xF0F0F0F0F0F0F0F0) | (
        ((x + <uint64_t>0x0606060606060606) & <uint64_t>0xF0F0F0F0F0F0F0F0) >> 4
    )) != <uint64_t>0x3333333333333333:
        return False
    x = (x & <uint64_t>0x0F0F0F0F0F0F0F0F) * <uint64_t>2561 >> 8
    x = (x & <uint64_t>0x00FF00FF00FF00FF) * <uint64_t>6553601 >> 16
    value[0] = (x & <uint64_t>0x0000FFFF0000FFFF) * <uint64_t>42949672960001 >> 32
    return True


cdef inline Bytes digits(Bytes p, Bytes end, uint64_t* value, int* n) noexcept nogil:
    # Appends digits to `value`, counting them in `n`; stops at the first that is none.
    cdef uint64_t eight, d
    if LITTLE_ENDIAN and end - p >= 8 and eight_digits(p, &eight):
        value[0] = value[0] * 100000000 + eight
        n[0] += 8
        p += 8
        if n[0] > MOST_DIGITS:
            return NULL
    while p < end:
        d = <uint64_t>p[0] - 48
        if d > 9:
            break
        value[0] = value[0] * 10 + d
        n[0] += 1
        if n[0] > MOST_DIGITS:
            return NULL
        p += 1
    return p


cdef inline Bytes whole(Bytes p, Bytes end, int64_t* out) noexcept nogil:
    # A JSON number that is a whole number >= 0.
    cdef uint64_t value = 0
    cdef int n = 0
    cdef Bytes at = digits(p, end, &value, &n)
    if at == NULL or n == 0 or (n > 1 and p[0] == 48):
        return NULL
    out[0] = <int64_t>value
    return at


cdef inline Bytes decimal(Bytes p, Bytes end, double* out) noexcept nogil:
    # A quoted plain decimal; correctly rounded, since both sides of its one division are exact.
    cdef uint64_t value = 0
    cdef int n = 0
    cdef int before
    if p >= end or p[0] != b'"':
        return NULL
    p = digits(p + 1, end, &value, &n)
    if p == NULL or n == 0 or p >= end:
        return NULL
    before = n
    if p[0] == b".":
        p = digits(p + 1, end, &value, &n)
        if p == NULL or n == before or p >= end:
            return NULL
    if p[0] != b'"' or value > <uint64_t>9007199254740992:
        return NULL
    out[0] = <double>value / POWERS_OF_TEN[n - before]
    return p + 1


cdef inline Bytes string(Bytes p, Bytes end) noexcept nogil:
    # The rest of a string whose opening quote was read: printable ASCII without escapes.
    while p < end and 32 <= p[0] < 127 and p[0] != b"\\":
        if p[0] == b'"':
            return p + 1
        p += 1
    return NULL


cdef Bytes skip(Bytes p, Bytes end) noexcept nogil:
    # Any flat value: a string, a number as JSON writes them, true, false, null.
    cdef Bytes start
    if p >= end:
        return NULL
    if p[0] == b'"':
        return string(p + 1, end)
    if starts(p, end, b"true", 4) or starts(p, end, b"null", 4):
        return p + 4
    if starts(p, end, b"false", 5):
        return p + 5
    if p[0] == b"-":
        p += 1
    start = p
    while p < end and 48 <= p[0] <= 57:
        p += 1
    if p == start or (p - start > 1 and start[0] == 48):
        return NULL
    if p < end and p[0] == b".":
        start = p + 1
        p = start
        while p < end and 48 <= p[0] <= 57:
            p += 1
        if p == start:
            return NULL
    # An exponent is for the decoder.
    return p


cdef inline Bytes same(Bytes p, Bytes end, const Name* name) noexcept nogil:
    # A quoted name and no other.
    if p >= end or p[0] != b'"' or not starts(p + 1, end, &name.at[0], name.n):
        return NULL
    p += 1 + name.n
    return p + 1 if p < end and p[0] == b'"' else NULL


cdef inline Bytes flag(Bytes p, Bytes end, int64_t* out) noexcept nogil:
    if starts(p, end, b"true", 4):
        out[0] = 1
        return p + 4
    if starts(p, end, b"false", 5):
        out[0] = 0
        return p + 5
    return NULL


cdef inline Bytes key(Bytes p, Bytes end, Bytes* name, Py_ssize_t* n) noexcept nogil:
    # "name": , after a brace or a comma.
    if p >= end or p[0] != b'"':
        return NULL
    name[0] = p + 1
    if end - p > 3 and p[2] == b'"' and p[3] == b":" and b"A" <= p[1] <= b"z" and p[1] != b"\\":
        # Nearly every name is one letter.
        n[0] = 1
        return p + 4
    p = string(p + 1, end)
    if p == NULL or p >= end or p[0] != b":":
        return NULL
    n[0] = p - name[0] - 1
    return p + 1


cdef inline Bytes next_member(Bytes p, Bytes end, bint* more) noexcept nogil:
    # A comma, or the closing brace.
    if p == NULL or p >= end:
        return NULL
    more[0] = p[0] == b","
    return p + 1 if more[0] or p[0] == b"}" else NULL


cdef inline bint once(int* seen, int bit) noexcept nogil:
    if seen[0] & bit:
        return False
    seen[0] |= bit
    return True


cdef bytes symbol_bytes(str symbol):
    raw = symbol.encode()
    if not 0 < len(raw) < MOST_NAME - 16:
        raise ValueError(f"symbol must be 1 to {MOST_NAME - 17} bytes, was {len(raw)}")
    return raw


cdef void set_name(Name* name, bytes text) noexcept:
    # A symbol's, or a topic's, which is a word of up to 16 more.
    name.n = len(text)
    memcpy(&name.at[0], <const char*>text, name.n)


# --- Binance ----------------------------------------------------------------------------------

cdef struct AggTrade:
    int64_t id
    int64_t ts_ms
    int64_t event_ms
    int64_t buyer_maker
    double price
    double qty


cdef struct BookTicker:
    int64_t update_id
    int64_t ts_ms
    int64_t event_ms
    double bid
    double bid_qty
    double ask
    double ask_qty


cdef Bytes agg_trade(Bytes p, Bytes end, const Name* symbol, AggTrade* out) noexcept nogil:
    # The members after "e":"aggTrade", and the closing brace.
    cdef Bytes name
    cdef Py_ssize_t n
    cdef int seen = 0
    cdef bint more = True
    cdef int64_t line
    while more:
        p = key(p, end, &name, &n)
        if p == NULL:
            return NULL
        if n != 1:
            # "st" tells the product lines of a shared stream apart: 2 is not ours.
            if n == 2 and name[0] == b"s" and name[1] == b"t":
                p = whole(p, end, &line) if once(&seen, 256) else NULL
                if p == NULL or line != 1:
                    return NULL
            else:
                p = skip(p, end)
        elif name[0] == b"E":
            p = whole(p, end, &out.event_ms) if once(&seen, 1) else NULL
        elif name[0] == b"s":
            p = same(p, end, symbol) if once(&seen, 2) else NULL
        elif name[0] == b"a":
            p = whole(p, end, &out.id) if once(&seen, 4) else NULL
        elif name[0] == b"p":
            p = decimal(p, end, &out.price) if once(&seen, 8) else NULL
        elif name[0] == b"q":
            p = decimal(p, end, &out.qty) if once(&seen, 16) else NULL
        elif name[0] == b"T":
            p = whole(p, end, &out.ts_ms) if once(&seen, 32) else NULL
        elif name[0] == b"m":
            p = flag(p, end, &out.buyer_maker) if once(&seen, 64) else NULL
        elif name[0] == b"e":
            return NULL
        else:
            p = skip(p, end)
        p = next_member(p, end, &more)
        if p == NULL:
            return NULL
    return p if seen & 127 == 127 and out.price > 0.0 and out.qty > 0.0 else NULL


cdef Bytes book_ticker(Bytes p, Bytes end, const Name* symbol, BookTicker* out) noexcept nogil:
    # The members after "e":"bookTicker", and the closing brace.
    cdef Bytes name
    cdef Py_ssize_t n
    cdef int seen = 0
    cdef bint more = True
    cdef int64_t line
    while more:
        p = key(p, end, &name, &n)
        if p == NULL:
            return NULL
        if n != 1:
            if n == 2 and name[0] == b"s" and name[1] == b"t":
                p = whole(p, end, &line) if once(&seen, 256) else NULL
                if p == NULL or line != 1:
                    return NULL
            else:
                p = skip(p, end)
        elif name[0] == b"u":
            p = whole(p, end, &out.update_id) if once(&seen, 1) else NULL
        elif name[0] == b"s":
            p = same(p, end, symbol) if once(&seen, 2) else NULL
        elif name[0] == b"b":
            p = decimal(p, end, &out.bid) if once(&seen, 4) else NULL
        elif name[0] == b"B":
            p = decimal(p, end, &out.bid_qty) if once(&seen, 8) else NULL
        elif name[0] == b"a":
            p = decimal(p, end, &out.ask) if once(&seen, 16) else NULL
        elif name[0] == b"A":
            p = decimal(p, end, &out.ask_qty) if once(&seen, 32) else NULL
        elif name[0] == b"T":
            p = whole(p, end, &out.ts_ms) if once(&seen, 64) else NULL
        elif name[0] == b"E":
            p = whole(p, end, &out.event_ms) if once(&seen, 128) else NULL
        elif name[0] == b"e":
            return NULL
        else:
            p = skip(p, end)
        p = next_member(p, end, &more)
        if p == NULL:
            return NULL
    return p if seen & 255 == 255 and 0.0 < out.bid < out.ask else NULL


cdef class BinanceFrames:
    """Reads ``aggTrade`` and ``bookTicker`` frames of one symbol, raw or wrapped by a stream name.

    After `scan` returned TRADE: ``trade_id``, ``price``, ``qty``, ``ts_ms`` (trade time),
    ``event_ms``, ``buyer_maker``. After QUOTE: ``bid``, ``bid_qty``, ``ask``, ``ask_qty`` (a
    quantity may be 0), ``update_id``, ``quote_ts_ms``, ``quote_event_ms``.

    Parameters
    ----------
    symbol : str
        As the venue writes it, upper case.
    """

    cdef Name _symbol
    cdef AggTrade _trade
    cdef BookTicker _quote

    def __init__(self, str symbol):
        set_name(&self._symbol, symbol_bytes(symbol))

    cdef int _scan(self, Bytes p, Bytes end) noexcept nogil:
        cdef AggTrade trade
        cdef BookTicker quote
        cdef bint wrapped = starts(p, end, b'{"stream":"', 11)
        cdef int found
        if wrapped:
            p = string(p + 11, end)
            if p == NULL or not starts(p, end, b',"data":', 8):
                return FOUND_OTHER
            p += 8
        if starts(p, end, b'{"e":"aggTrade",', 16):
            p = agg_trade(p + 16, end, &self._symbol, &trade)
            found = FOUND_TRADE
        elif starts(p, end, b'{"e":"bookTicker",', 18):
            p = book_ticker(p + 18, end, &self._symbol, &quote)
            found = FOUND_QUOTE
        else:
            return FOUND_OTHER
        if p == NULL:
            return FOUND_OTHER
        if wrapped:
            if p >= end or p[0] != b"}":
                return FOUND_OTHER
            p += 1
        if p != end:
            return FOUND_OTHER
        if found == FOUND_TRADE:
            self._trade = trade
        else:
            self._quote = quote
        return found

    def scan(self, const unsigned char[::1] frame not None):
        """Return TRADE or QUOTE and hold what the frame says, else OTHER.

        ``frame`` is a whole message: bytes, or a view of the socket's memory, which is not kept.
        """
        if frame.shape[0] == 0:
            return FOUND_OTHER
        return self._scan(&frame[0], &frame[0] + frame.shape[0])

    def scan_repeatedly(self, const unsigned char[::1] frame not None, Py_ssize_t n):
        """Scan a frame ``n`` times and return how often it was usual: what one scan costs in C."""
        cdef Py_ssize_t _i
        cdef Py_ssize_t found = 0
        if frame.shape[0] == 0:
            return 0
        with nogil:
            for _i in range(n):
                found += self._scan(&frame[0], &frame[0] + frame.shape[0]) != FOUND_OTHER
        return found

    @property
    def trade_id(self):
        """Aggregate trade id."""
        return self._trade.id

    @property
    def price(self):
        """Price of the trade."""
        return self._trade.price

    @property
    def qty(self):
        """Quantity of the trade, base units."""
        return self._trade.qty

    @property
    def ts_ms(self):
        """Time of the trade."""
        return self._trade.ts_ms

    @property
    def event_ms(self):
        """Time at which the trade was sent."""
        return self._trade.event_ms

    @property
    def buyer_maker(self):
        """Whether the buyer was the maker: the taker sold."""
        return self._trade.buyer_maker == 1

    @property
    def bid(self):
        """Best bid."""
        return self._quote.bid

    @property
    def bid_qty(self):
        """Quantity at the best bid."""
        return self._quote.bid_qty

    @property
    def ask(self):
        """Best ask."""
        return self._quote.ask

    @property
    def ask_qty(self):
        """Quantity at the best ask."""
        return self._quote.ask_qty

    @property
    def update_id(self):
        """Update id of the book that the quote is of."""
        return self._quote.update_id

    @property
    def quote_ts_ms(self):
        """Time of the quote, by the matching engine."""
        return self._quote.ts_ms

    @property
    def quote_event_ms(self):
        """Time at which the quote was sent."""
        return self._quote.event_ms


# --- Bybit ------------------------------------------------------------------------------------

cdef struct TradeId:
    Py_ssize_t n
    char[MOST_ID] at


cdef struct TopLevel:
    int64_t update_id
    int64_t ts_ms
    double bid
    double bid_qty
    double ask
    double ask_qty


cdef Bytes public_trade(
    Bytes p, Bytes end, const Name* symbol, Trade* out, TradeId* id
) noexcept nogil:
    # One row, from its opening brace.
    cdef Bytes name
    cdef Bytes after
    cdef Py_ssize_t n
    cdef int seen = 0
    cdef bint more = True
    if p >= end or p[0] != b"{":
        return NULL
    p += 1
    out.block = 0
    out.seq = 0
    while more:
        p = key(p, end, &name, &n)
        if p == NULL:
            return NULL
        if n == 1 and name[0] == b"T":
            p = whole(p, end, &out.ts_ms) if once(&seen, 1) else NULL
        elif n == 1 and name[0] == b"s":
            p = same(p, end, symbol) if once(&seen, 2) else NULL
        elif n == 1 and name[0] == b"S":
            if not once(&seen, 4):
                return NULL
            if starts(p, end, b'"Buy"', 5):
                out.buyer_maker = 0
                p += 5
            elif starts(p, end, b'"Sell"', 6):
                out.buyer_maker = 1
                p += 6
            else:
                return NULL
        elif n == 1 and name[0] == b"v":
            p = decimal(p, end, &out.qty) if once(&seen, 8) else NULL
        elif n == 1 and name[0] == b"p":
            p = decimal(p, end, &out.price) if once(&seen, 16) else NULL
        elif n == 1 and name[0] == b"i":
            if p >= end or p[0] != b'"' or not once(&seen, 32):
                return NULL
            after = string(p + 1, end)
            if after == NULL or not 0 < after - p - 2 <= MOST_ID:
                return NULL
            id.n = after - p - 2
            memcpy(&id.at[0], p + 1, id.n)
            p = after
        elif n == 2 and name[0] == b"B" and name[1] == b"T":
            p = flag(p, end, &out.block) if once(&seen, 64) else NULL
        elif n == 3 and memcmp(name, b"seq", 3) == 0:
            p = whole(p, end, &out.seq) if once(&seen, 128) else NULL
        else:
            p = skip(p, end)
        p = next_member(p, end, &more)
        if p == NULL:
            return NULL
    return p if seen & 63 == 63 and out.price > 0.0 and out.qty > 0.0 else NULL


cdef inline Bytes level(Bytes p, Bytes end, double* price, double* qty) noexcept nogil:
    # [["price","qty"]]: one level and no more.
    if not starts(p, end, b"[[", 2):
        return NULL
    p = decimal(p + 2, end, price)
    if p == NULL or p >= end or p[0] != b",":
        return NULL
    p = decimal(p + 1, end, qty)
    return p + 2 if p != NULL and starts(p, end, b"]]", 2) else NULL


cdef Bytes top_level(Bytes p, Bytes end, const Name* symbol, TopLevel* out) noexcept nogil:
    # The object "data" of orderbook.1.
    cdef Bytes name
    cdef Py_ssize_t n
    cdef int seen = 0
    cdef bint more = True
    if p >= end or p[0] != b"{":
        return NULL
    p += 1
    while more:
        p = key(p, end, &name, &n)
        if p == NULL:
            return NULL
        if n == 1 and name[0] == b"s":
            p = same(p, end, symbol) if once(&seen, 1) else NULL
        elif n == 1 and name[0] == b"b":
            p = level(p, end, &out.bid, &out.bid_qty) if once(&seen, 2) else NULL
        elif n == 1 and name[0] == b"a":
            p = level(p, end, &out.ask, &out.ask_qty) if once(&seen, 4) else NULL
        elif n == 1 and name[0] == b"u":
            p = whole(p, end, &out.update_id) if once(&seen, 8) else NULL
        else:
            p = skip(p, end)
        p = next_member(p, end, &more)
        if p == NULL:
            return NULL
    if seen != 15 or not 0.0 < out.bid < out.ask or not (out.bid_qty > 0.0 and out.ask_qty > 0.0):
        return NULL
    return p


cdef class BybitFrames:
    """Reads ``publicTrade`` and ``orderbook.1`` messages of one symbol.

    After `scan` returned TRADE: ``n_trades`` rows, each by `trade`, together in ``trades``. After
    QUOTE: ``bid``, ``bid_qty``, ``ask``, ``ask_qty``, ``update_id``, ``ts_ms`` (of the matching
    engine, else of the push).

    Parameters
    ----------
    symbol : str
        As the venue writes it, upper case.
    """

    cdef Name _symbol
    cdef Name _trades_topic
    cdef Name _quote_topic
    cdef TopLevel _quote
    cdef Py_ssize_t _n
    # Two sets: what is held, and what is being read.
    cdef Trade[2][MOST_TRADES] _trades
    cdef TradeId[2][MOST_TRADES] _ids
    cdef int _held

    def __init__(self, str symbol):
        name = symbol_bytes(symbol)
        set_name(&self._symbol, name)
        set_name(&self._trades_topic, b"publicTrade." + name)
        set_name(&self._quote_topic, b"orderbook.1." + name)

    cdef int _scan(self, Bytes p, Bytes end) noexcept nogil:
        cdef Bytes name
        cdef Py_ssize_t n
        cdef Py_ssize_t rows = 0
        cdef int seen = 0
        cdef bint more = True
        cdef bint is_trade
        cdef bint snapshot = False
        cdef int64_t ts_ms = 0
        cdef int64_t cts_ms = 0
        cdef int free = 1 - self._held
        cdef TopLevel quote
        if not starts(p, end, b'{"topic":', 9):
            return FOUND_OTHER
        name = p + 9
        p = same(name, end, &self._quote_topic)
        is_trade = p == NULL
        if is_trade:
            p = same(name, end, &self._trades_topic)
        if p == NULL or p >= end or p[0] != b",":
            return FOUND_OTHER
        p += 1
        while more:
            p = key(p, end, &name, &n)
            if p == NULL:
                return FOUND_OTHER
            if n == 4 and memcmp(name, b"data", 4) == 0:
                if not once(&seen, 1):
                    return FOUND_OTHER
                if is_trade:
                    p = self._read_trades(p, end, free, &rows)
                else:
                    p = top_level(p, end, &self._symbol, &quote)
            elif n == 4 and memcmp(name, b"type", 4) == 0:
                if not once(&seen, 2) or not starts(p, end, b'"snapshot"', 10):
                    return FOUND_OTHER
                p += 10
                snapshot = True
            elif n == 2 and memcmp(name, b"ts", 2) == 0:
                p = whole(p, end, &ts_ms) if once(&seen, 4) else NULL
            elif n == 3 and memcmp(name, b"cts", 3) == 0:
                p = whole(p, end, &cts_ms) if once(&seen, 8) else NULL
            elif n == 5 and memcmp(name, b"topic", 5) == 0:
                return FOUND_OTHER
            else:
                p = skip(p, end)
            p = next_member(p, end, &more)
            if p == NULL:
                return FOUND_OTHER
        if p != end or seen & 5 != 5 or not snapshot:
            return FOUND_OTHER
        if is_trade:
            self._held = free
            self._n = rows
            return FOUND_TRADE
        quote.ts_ms = cts_ms if seen & 8 else ts_ms
        self._quote = quote
        return FOUND_QUOTE

    cdef Bytes _read_trades(
        self, Bytes p, Bytes end, int free, Py_ssize_t* rows
    ) noexcept nogil:
        if p >= end or p[0] != b"[":
            return NULL
        p += 1
        while rows[0] < MOST_TRADES:
            p = public_trade(
                p, end, &self._symbol, &self._trades[free][rows[0]], &self._ids[free][rows[0]])
            if p == NULL or p >= end:
                return NULL
            rows[0] += 1
            if p[0] == b"]":
                return p + 1
            if p[0] != b",":
                return NULL
            p += 1
        return NULL

    def scan(self, const unsigned char[::1] frame not None):
        """Return TRADE or QUOTE and hold what the message says, else OTHER.

        ``frame`` is a whole message: bytes, or a view of the socket's memory, which is not kept.
        """
        if frame.shape[0] == 0:
            return FOUND_OTHER
        return self._scan(&frame[0], &frame[0] + frame.shape[0])

    def scan_repeatedly(self, const unsigned char[::1] frame not None, Py_ssize_t n):
        """Scan a message ``n`` times and return how often it was usual: the cost of one in C."""
        cdef Py_ssize_t _i
        cdef Py_ssize_t found = 0
        if frame.shape[0] == 0:
            return 0
        with nogil:
            for _i in range(n):
                found += self._scan(&frame[0], &frame[0] + frame.shape[0]) != FOUND_OTHER
        return found

    def trade(self, Py_ssize_t i):
        """Return (trade_id, price, qty, ts_ms, buyer_maker) of row ``i``, oldest first."""
        cdef const Trade* row
        cdef const TradeId* id
        if not 0 <= i < self._n:
            raise IndexError(f"row must be in [0, {self._n}), was {i}")
        row = &self._trades[self._held][i]
        id = &self._ids[self._held][i]
        return (
            PyUnicode_DecodeASCII(&id.at[0], id.n, NULL), row.price, row.qty, row.ts_ms,
            row.buyer_maker == 1,
        )

    @property
    def n_trades(self):
        """How many trades the last message of them had."""
        return self._n

    @property
    def trades(self):
        """The trades of the last message, a copy: TRADE_DTYPE, shape (n_trades,)."""
        cdef Trade[::1] view
        out = np.zeros(self._n, TRADE_DTYPE)
        if self._n:
            view = out
            memcpy(&view[0], &self._trades[self._held][0], self._n * sizeof(Trade))
        return out

    @property
    def bid(self):
        """Best bid."""
        return self._quote.bid

    @property
    def bid_qty(self):
        """Quantity at the best bid."""
        return self._quote.bid_qty

    @property
    def ask(self):
        """Best ask."""
        return self._quote.ask

    @property
    def ask_qty(self):
        """Quantity at the best ask."""
        return self._quote.ask_qty

    @property
    def update_id(self):
        """Update id of the book that the quote is of."""
        return self._quote.update_id

    @property
    def ts_ms(self):
        """Time of the quote."""
        return self._quote.ts_ms
