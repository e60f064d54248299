# The planner's rooms, for the engines that plan without touching Python.
from libc.stdint cimport int64_t
from passivx._core.types cimport Market, Order, Strategy, View

cdef enum:
    MAX_RUNGS = 200            # of re-entries, and of closes; config.py allows no more
    MAX_ORDERS = 401           # both ladders and one stop

cdef struct Levels:            # prices at or beyond which a stop starts; ±inf = never
    double liq
    double pos

cdef int plan(
    Order* out, const View* view, const Strategy* strategy, const Market* market) noexcept nogil
cdef bint create(
    Order* sent, const Order* ideal, bint nearest,
    const View* view, const Strategy* strategy, const Market* market) noexcept nogil
cdef Levels stop_levels(
    int64_t side, double entry, double liq, const Strategy* strategy) noexcept nogil
cdef int64_t stop_reached(int64_t side, double price, Levels levels) noexcept nogil
cdef double budget(const View* view, const Strategy* strategy) noexcept nogil
cdef double max_position(
    double budget, double price, double leverage, const Market* market) noexcept nogil
