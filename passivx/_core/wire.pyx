"""Order messages as bytes, and their signatures: what stands between a decision and the socket.

Texts are assembled in place from parts prepared once; what varies is checked, so that nothing in
them ever needs escaping or encoding, and both readings of what a signature covers are one text.
"""

import hashlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport fabs, rint
from libc.stdint cimport int64_t
from libc.string cimport memcpy, strlen
from passivx._core.types cimport Step


cdef enum:
    ROOM = 2048                # bytes of the longest message, with much to spare
    MOST_ID = 36               # characters of a client id at either venue
    MOST_PART = 128            # of a key, a symbol, a request id


cdef struct Text:
    Py_ssize_t n
    char[ROOM] at


# --- numbers ----------------------------------------------------------------------------------

cdef inline void put(Text* text, const char* part, Py_ssize_t n) noexcept nogil:
    # What does not fit marks the whole text as too long.
    if text.n + n > ROOM:
        text.n = ROOM + 1
        return
    memcpy(&text.at[text.n], part, n)
    text.n += n


cdef inline void say(Text* text, const char* literal) noexcept nogil:
    put(text, literal, strlen(literal))


cdef inline void put_bytes(Text* text, bytes part):
    put(text, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))


cdef void put_whole(Text* text, int64_t n, int decimals) noexcept nogil:
    # n / 10**decimals, n >= 0.
    cdef char[40] digits
    cdef int i = 40
    cdef int written = 0
    while n > 0 or written <= decimals:
        if written == decimals and decimals > 0:
            i -= 1
            digits[i] = b"."
        i -= 1
        digits[i] = <char>(48 + n % 10)
        n //= 10
        written += 1
    put(text, &digits[i], 40 - i)


cdef int decimals_of(Step step) except -1:
    cdef int decimals = 0
    cdef double scale = step.scale
    while scale > 1.0:
        scale /= 10.0
        decimals += 1
    if not (scale == 1.0 and decimals <= 15 and 1.0 <= step.units <= 1e9):
        raise ValueError(
            f"step must be whole units over a power of ten, was {step.units:g}/{step.scale:g}")
    return decimals


cdef struct Grid:
    Step step
    int decimals


cdef int read_grid(Grid* grid, tuple step) except -1:
    grid.step.units, grid.step.scale = step
    grid.decimals = decimals_of(grid.step)
    return 0


cdef int64_t grid_units(str name, double x, Step step) except -1:
    # x * scale as a whole number, for x >= 0 on the grid.
    cdef double n = rint(x * step.scale)
    cdef double steps = rint(n / step.units)
    if not (0.0 <= n <= 9007199254740992.0 and steps * step.units == n
            and fabs(n / step.scale - x) <= 1e-12 * x):
        raise ValueError(
            f"{name} must be a multiple of {step.units:g}/{step.scale:g} within what the venue "
            f"can be told, was {x!r}")
    return <int64_t>n


cdef int put_amount(Text* text, str name, double x, const Grid* grid) except -1:
    # Of an order: Bybit reads a quantity of 0 as the whole position.
    if x == 0.0:
        raise ValueError(f"{name} must be > 0, was {x!r}")
    put_whole(text, grid_units(name, x, grid.step), grid.decimals)
    return 0


cdef int check_window(int recv_window_ms) except -1:
    if not 0 < recv_window_ms <= 60_000:
        raise ValueError(f"recv_window_ms must be in [1, 60000], was {recv_window_ms}")
    return 0


def decimal_text(double x, tuple step, *, str name="x"):
    """Return the venue's decimal text of a price or quantity on its grid.

    Plain digits with exactly the step's decimals: no exponent, no sign, no rounding.

    Parameters
    ----------
    x : float
        >= 0, a multiple of the step as `Market` makes them.
    step : tuple of (float, float)
        Whole units and a power of ten: 0.05 is (5, 100).
    name : str
        What an error calls ``x``.

    Raises
    ------
    ValueError
        If ``x`` is not on the grid, not finite, negative, or beyond 2**53 of the last decimal.
    """
    cdef Grid grid
    cdef Text text
    read_grid(&grid, step)
    text.n = 0
    put_whole(&text, grid_units(name, x, grid.step), grid.decimals)
    return text.at[:text.n].decode("ascii")


# --- signatures -------------------------------------------------------------------------------

cdef class Hmac:
    """HMAC-SHA256 by a secret whose two pads are hashed once (RFC 2104).

    The secret is not kept, only its pads' hash states; nothing shows or pickles them.
    """

    cdef object _inner
    cdef object _outer

    def __init__(self, bytes secret):
        key = hashlib.sha256(secret).digest() if len(secret) > 64 else secret
        key = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    cpdef bytes sign(self, message):
        """Return the signature of a message (bytes) as 64 lowercase hex digits."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def __repr__(self):
        return "<Hmac>"

    def __reduce__(self):
        raise TypeError("a signing key is not copied, pickled or sent to another process")


# --- parts ------------------------------------------------------------------------------------

cdef inline bint is_plain(char c) noexcept nogil:
    # Means itself in JSON, in a query and in both venues' client ids.
    return (
        b"0" <= c <= b"9" or b"A" <= c <= b"Z" or b"a" <= c <= b"z" or c == b"_" or c == b"-")


cdef const char* plain(str name, object value, Py_ssize_t most, Py_ssize_t* n) except NULL:
    cdef const char* text
    cdef Py_ssize_t i
    if type(value) is not str:
        raise ValueError(f"{name} must be a text, was a {type(value).__name__}")
    text = PyUnicode_AsUTF8AndSize(value, n)
    if not 0 < n[0] <= most:
        raise ValueError(f"{name} must be 1 to {most} characters, was {n[0]}")
    for i in range(n[0]):
        if not is_plain(text[i]):
            raise ValueError(f"{name} must be of A-Z a-z 0-9 _ -")
    return text


cdef bytes plain_bytes(str name, object value):
    cdef Py_ssize_t n
    cdef const char* text = plain(name, value, MOST_PART, &n)
    return PyBytes_FromStringAndSize(text, n)


cdef int put_plain(Text* text, str name, object value, Py_ssize_t most) except -1:
    cdef Py_ssize_t n
    cdef const char* part = plain(name, value, most, &n)
    put(text, part, n)
    return 0


cdef int check_side(int side) except -1:
    if side != 1 and side != -1:
        raise ValueError(f"side must be 1 or -1, was {side}")
    return 0


cdef int check_time(int64_t ts_ms) except -1:
    if not 0 < ts_ms < 100_000_000_000_000:
        raise ValueError(f"ts_ms must be a time in ms, was {ts_ms}")
    return 0


cdef bytes whole(Text* text):
    if text.n > ROOM:
        raise ValueError("the message is too long")
    return PyBytes_FromStringAndSize(&text.at[0], text.n)


# --- Binance ----------------------------------------------------------------------------------

cdef struct Params:            # the same of one message in the same order: sorted by name
    Text sent                  # JSON members, a comma behind each
    Text signed                # name=value, an & behind each


cdef inline void both(Params* params, const char* sent, const char* signed) noexcept nogil:
    say(&params.sent, sent)
    say(&params.signed, signed)


cdef inline void put_params(Params* params, const Params* more) noexcept nogil:
    put(&params.sent, &more.sent.at[0], more.sent.n)
    put(&params.signed, &more.signed.at[0], more.signed.n)


cdef inline int put_plain_value(Params* params, str name, object value) except -1:
    cdef Py_ssize_t n
    cdef const char* part = plain(name, value, MOST_ID, &n)
    put(&params.sent, part, n)
    put(&params.signed, part, n)
    return 0


cdef inline void sign_since(Params* params, Py_ssize_t start) noexcept nogil:
    # What was sent since is signed as well.
    if params.sent.n <= ROOM:
        put(&params.signed, &params.sent.at[start], params.sent.n - start)


cdef inline int put_amount_value(Params* params, str name, double x, const Grid* grid) except -1:
    cdef Py_ssize_t start = params.sent.n
    put_amount(&params.sent, name, x, grid)
    sign_since(params, start)
    return 0


cdef inline void put_time(Params* params, int64_t ts_ms) noexcept nogil:
    cdef Py_ssize_t start
    both(params, b'"timestamp":', b"timestamp=")
    start = params.sent.n
    put_whole(&params.sent, ts_ms, 0)
    sign_since(params, start)
    both(params, b",", b"&")


cdef inline void put_side(Params* params, int side) noexcept nogil:
    if side > 0:
        both(params, b'"side":"BUY",', b"side=BUY&")
    else:
        both(params, b'"side":"SELL",', b"side=SELL&")


cdef class BinanceOrderText:
    """Order messages of one symbol for Binance's order socket (ws-fapi), signed.

    The signature is over all of ``params`` but itself, sorted by name, as ``k=v`` joined by ``&``.
    Whole numbers are JSON numbers, decimals and ``reduceOnly`` texts.

    Parameters
    ----------
    api_key, symbol : str
        Of A-Z a-z 0-9 _ - only: a symbol with other characters goes over REST.
    price_step, qty_step : tuple of (float, float)
        Whole units and a power of ten.
    sign : callable of bytes to bytes
        `Hmac.sign`, or what makes base64 of an Ed25519 signature.
    recv_window_ms : int
        In 1 .. 60000.
    """

    cdef Grid _price_grid
    cdef Grid _qty_grid
    cdef object _sign
    cdef bytes _name
    cdef Params _key
    cdef Params _window
    cdef Params _symbol

    def __init__(
        self, api_key, symbol, tuple price_step, tuple qty_step, sign, *, int recv_window_ms=5000,
    ):
        check_window(recv_window_ms)
        read_grid(&self._price_grid, price_step)
        read_grid(&self._qty_grid, qty_step)
        key = plain_bytes("api_key", api_key)
        self._name = plain_bytes("symbol", symbol)
        self._key.sent.n = self._key.signed.n = 0
        self._window.sent.n = self._window.signed.n = 0
        self._symbol.sent.n = self._symbol.signed.n = 0
        both(&self._key, b'"apiKey":"%s",' % key, b"apiKey=%s&" % key)
        both(
            &self._window, b'"recvWindow":%d,' % recv_window_ms, b"recvWindow=%d&" % recv_window_ms)
        both(&self._symbol, b'"symbol":"%s",' % self._name, b"symbol=%s&" % self._name)
        self._sign = sign

    def __repr__(self):
        return f"<BinanceOrderText {self._name.decode()}>"

    def place(
        self, id, int64_t ts_ms, client_id, int side, double price, double qty, *,
        bint reduce_only=False, bint at_market=False,
    ):
        """Return an ``order.place`` frame: post-only at ``price``, or at market.

        A market order expires what of ours it would meet.

        Raises
        ------
        ValueError
            If a price or quantity is 0 or off the grid, or an id is not of A-Z a-z 0-9 _ -.
        """
        cdef Params params
        check_side(side)
        check_time(ts_ms)
        self._begin(&params, id, b"order.place")
        both(&params, b'"newClientOrderId":"', b"newClientOrderId=")
        put_plain_value(&params, "client_id", client_id)
        both(&params, b'","newOrderRespType":"ACK",', b"&newOrderRespType=ACK&")
        if not at_market:
            both(&params, b'"price":"', b"price=")
            put_amount_value(&params, "price", price, &self._price_grid)
            both(&params, b'",', b"&")
        both(&params, b'"quantity":"', b"quantity=")
        put_amount_value(&params, "qty", qty, &self._qty_grid)
        both(&params, b'",', b"&")
        put_params(&params, &self._window)
        if reduce_only:
            both(&params, b'"reduceOnly":"true",', b"reduceOnly=true&")
        if at_market:
            both(
                &params, b'"selfTradePreventionMode":"EXPIRE_MAKER",',
                b"selfTradePreventionMode=EXPIRE_MAKER&")
        put_side(&params, side)
        put_params(&params, &self._symbol)
        if not at_market:
            both(&params, b'"timeInForce":"GTX",', b"timeInForce=GTX&")
        put_time(&params, ts_ms)
        if at_market:
            both(&params, b'"type":"MARKET",', b"type=MARKET&")
        else:
            both(&params, b'"type":"LIMIT",', b"type=LIMIT&")
        return self._signed(&params)

    def modify(
        self, id, int64_t ts_ms, int side, double price, double qty, *,
        order_id="", client_id="", bint reduce_only=False,
    ):
        """Return an ``order.modify`` frame; ``qty`` is the new total, both are always sent.

        ``reduce_only`` of a reduce-only order spares it the least notional.
        """
        cdef Params params
        check_side(side)
        check_time(ts_ms)
        self._begin(&params, id, b"order.modify")
        self._refer(&params, order_id, client_id)
        both(&params, b'"price":"', b"price=")
        put_amount_value(&params, "price", price, &self._price_grid)
        both(&params, b'","quantity":"', b"&quantity=")
        put_amount_value(&params, "qty", qty, &self._qty_grid)
        both(&params, b'",', b"&")
        put_params(&params, &self._window)
        if reduce_only:
            both(&params, b'"reduceOnly":"true",', b"reduceOnly=true&")
        put_side(&params, side)
        put_params(&params, &self._symbol)
        put_time(&params, ts_ms)
        return self._signed(&params)

    def cancel(self, id, int64_t ts_ms, *, order_id="", client_id=""):
        """Return an ``order.cancel`` frame, by the venue's id if given, else by ours."""
        cdef Params params
        check_time(ts_ms)
        self._begin(&params, id, b"order.cancel")
        self._refer(&params, order_id, client_id)
        put_params(&params, &self._window)
        put_params(&params, &self._symbol)
        put_time(&params, ts_ms)
        return self._signed(&params)

    cdef int _begin(self, Params* params, object id, bytes method) except -1:
        params.sent.n = params.signed.n = 0
        say(&params.sent, b'{"id":"')
        put_plain(&params.sent, "id", id, MOST_PART)
        say(&params.sent, b'","method":"')
        put_bytes(&params.sent, method)
        say(&params.sent, b'","params":{')
        put_params(params, &self._key)
        return 0

    cdef int _refer(self, Params* params, object order_id, object client_id) except -1:
        # Both names sort between apiKey and price.
        if order_id:
            if not (order_id.isascii() and order_id.isdigit() and len(order_id) < 20):
                raise ValueError("order_id must be a whole number")
            both(params, b'"orderId":', b"orderId=")
            put_plain_value(params, "order_id", order_id)
            both(params, b",", b"&")
        else:
            both(params, b'"origClientOrderId":"', b"origClientOrderId=")
            put_plain_value(params, "client_id", client_id)
            both(params, b'",', b"&")
        return 0

    cdef bytes _signed(self, Params* params):
        if params.signed.n <= ROOM:
            params.signed.n -= 1  # the last &
        say(&params.sent, b'"signature":"')
        put_bytes(&params.sent, self._sign(whole(&params.signed)))
        say(&params.sent, b'"}}')
        return whole(&params.sent)


# --- Bybit ------------------------------------------------------------------------------------

cdef class BybitOrderText:
    """Order messages of one symbol for Bybit's trade socket, which is authenticated once.

    Parameters
    ----------
    symbol, category : str
    price_step, qty_step : tuple of (float, float)
        Whole units and a power of ten.
    recv_window_ms : int
        In 1 .. 60000.
    """

    cdef Grid _price_grid
    cdef Grid _qty_grid
    cdef bytes _name
    cdef bytes _after_time       # ","X-BAPI-RECV-WINDOW":"5000"},"op":"
    cdef bytes _args             # ","args":[{"category":"inverse","symbol":"BTCUSD",

    def __init__(
        self, symbol, category, tuple price_step, tuple qty_step, *, int recv_window_ms=5000,
    ):
        check_window(recv_window_ms)
        read_grid(&self._price_grid, price_step)
        read_grid(&self._qty_grid, qty_step)
        self._name = plain_bytes("symbol", symbol)
        self._after_time = b'","X-BAPI-RECV-WINDOW":"%d"},"op":"' % recv_window_ms
        self._args = b'","args":[{"category":"%s","symbol":"%s",' % (
            plain_bytes("category", category), self._name)

    def __repr__(self):
        return f"<BybitOrderText {self._name.decode()}>"

    def place(
        self, id, int64_t ts_ms, client_id, int side, double price, double qty, *,
        bint reduce_only=False, bint at_market=False,
    ):
        """Return an ``order.create`` frame: post-only at ``price``, or at market.

        A market order cancels what of ours it would meet.

        Raises
        ------
        ValueError
            If a price or quantity is 0 or off the grid, or an id is not of A-Z a-z 0-9 _ -.
        """
        cdef Text frame
        check_side(side)
        frame.n = 0
        self._begin(&frame, id, ts_ms, b"order.create")
        if side > 0:
            say(&frame, b'"side":"Buy","orderType":"')
        else:
            say(&frame, b'"side":"Sell","orderType":"')
        if at_market:
            say(&frame, b'Market","qty":"')
        else:
            say(&frame, b'Limit","qty":"')
        put_amount(&frame, "qty", qty, &self._qty_grid)
        if at_market:
            say(&frame, b'","smpType":"CancelMaker')
        else:
            say(&frame, b'","price":"')
            put_amount(&frame, "price", price, &self._price_grid)
            say(&frame, b'","timeInForce":"PostOnly')
        say(&frame, b'","positionIdx":0,"orderLinkId":"')
        put_plain(&frame, "client_id", client_id, MOST_ID)
        if reduce_only:
            say(&frame, b'","reduceOnly":true}]}')
        else:
            say(&frame, b'","reduceOnly":false}]}')
        return whole(&frame)

    def modify(
        self, id, int64_t ts_ms, double price, double qty, *, order_id="", client_id="",
    ):
        """Return an ``order.amend`` frame; ``qty`` is the new total."""
        cdef Text frame
        frame.n = 0
        self._begin(&frame, id, ts_ms, b"order.amend")
        self._refer(&frame, order_id, client_id)
        say(&frame, b',"qty":"')
        put_amount(&frame, "qty", qty, &self._qty_grid)
        say(&frame, b'","price":"')
        put_amount(&frame, "price", price, &self._price_grid)
        say(&frame, b'"}]}')
        return whole(&frame)

    def cancel(self, id, int64_t ts_ms, *, order_id="", client_id=""):
        """Return an ``order.cancel`` frame, by the venue's id if given, else by ours."""
        cdef Text frame
        frame.n = 0
        self._begin(&frame, id, ts_ms, b"order.cancel")
        self._refer(&frame, order_id, client_id)
        say(&frame, b"}]}")
        return whole(&frame)

    cdef int _begin(self, Text* frame, object id, int64_t ts_ms, bytes op) except -1:
        check_time(ts_ms)
        say(frame, b'{"reqId":"')
        put_plain(frame, "id", id, MOST_ID)
        say(frame, b'","header":{"X-BAPI-TIMESTAMP":"')
        put_whole(frame, ts_ms, 0)
        put_bytes(frame, self._after_time)
        put_bytes(frame, op)
        put_bytes(frame, self._args)
        return 0

    cdef int _refer(self, Text* frame, object order_id, object client_id) except -1:
        if order_id:
            say(frame, b'"orderId":"')
            put_plain(frame, "order_id", order_id, MOST_PART)
        else:
            say(frame, b'"orderLinkId":"')
            put_plain(frame, "client_id", client_id, MOST_ID)
        say(frame, b'"')
        return 0
