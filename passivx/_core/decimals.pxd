# What decimal digits are divided by, header only.
cdef extern from *:
    """
    static const double POWERS_OF_TEN[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
    };
    """
    # Those a double holds exactly: with whole digits up to 2**53, one operation rounds once.
    const double[23] POWERS_OF_TEN
