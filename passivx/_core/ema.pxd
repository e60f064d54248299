# Exponential moving average over price changes: one step function for stream, array and engines.


cdef struct Ema:
    double value
    double alpha
    double beta
    double price               # of the tick before


cdef inline double ema_step(double value, double price, double alpha, double beta) noexcept nogil:
    return value * beta + price * alpha


cdef inline void ema_start(Ema* ema, double price, double span) noexcept nogil:
    ema.value = price
    ema.price = price
    ema.alpha = 2.0 / (span + 1.0)
    ema.beta = 1.0 - ema.alpha


cdef inline void ema_update(Ema* ema, double price) noexcept nogil:
    # A tick that repeats the price before it is no news.
    if price != ema.price:
        ema.value = ema_step(ema.value, price, ema.alpha, ema.beta)
        ema.price = price
