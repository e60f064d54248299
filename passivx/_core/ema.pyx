"""The tick EMA: an exponential moving average over price changes of the trade stream."""

import numpy as np

from libc.math cimport isfinite
from passivx._core.ema cimport Ema, ema_start, ema_update


cdef class TickEma:
    """Streaming tick EMA.

    Starts at the first price; a tick whose price differs from the tick before it moves the value
    to ``value * beta + price * alpha`` with alpha = 2 / (span + 1), beta = 1 - alpha; one that
    repeats the price changes nothing. Span 1 is the last price.

    Parameters
    ----------
    price : float
        First price, finite and > 0.
    span : float
        In price changes, finite and >= 1.

    Raises
    ------
    ValueError
        If a price or the span is out of range.
    """

    cdef Ema _ema

    def __init__(self, double price, *, double span):
        _check_span(span)
        _check_price(price)
        ema_start(&self._ema, price, span)

    def update(self, double price):
        """Take in one tick and return the new value."""
        _check_price(price)
        ema_update(&self._ema, price)
        return self._ema.value

    @property
    def value(self):
        """Return the EMA after the last tick."""
        return self._ema.value


cdef _check_span(double span):
    if not (isfinite(span) and span >= 1.0):
        raise ValueError(f"span must be finite and >= 1, was {span}")


cdef _check_price(double price):
    if not (isfinite(price) and price > 0.0):
        raise ValueError(f"price must be finite and > 0, was {price}")


def tick_ema(const double[::1] price, *, double span):
    """Return the EMA after each tick: the array form of TickEma, equal to it bit for bit.

    Parameters
    ----------
    price : ndarray of f8, shape (n,)
        Finite, > 0 (the caller's ticks have been checked).
    span : float
        In price changes, finite and >= 1.

    Returns
    -------
    ndarray of f8, shape (n,)
    """
    cdef Py_ssize_t n = price.shape[0]
    cdef Py_ssize_t i
    cdef double[::1] out
    cdef Ema ema
    _check_span(span)
    result = np.empty(n)
    if n == 0:
        return result
    out = result
    with nogil:
        ema_start(&ema, price[0], span)
        out[0] = ema.value
        for i in range(1, n):
            ema_update(&ema, price[i])
            out[i] = ema.value
    return result
