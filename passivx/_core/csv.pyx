"""A columnar CSV scanner: whole lines of bytes in, one typed array a column out.

Own code because pyarrow (166 MB installed) does not belong in the core install and
``numpy.loadtxt`` takes some four times as long (benchmarks/bench_ticks.py).
"""

from enum import IntEnum

import numpy as np

from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr
from passivx._core.decimals cimport POWERS_OF_TEN


cdef struct Column:
    int64_t index              # 0-based field of the line
    int64_t decode             # DECODE_*
    char* out                  # one element a row: double, int64_t or unsigned char


cdef struct Fault:             # the first thing found wrong
    int64_t reason             # FAULT_*
    int64_t row                # 0-based line of the buffer
    int64_t field              # 0-based field; the number of fields for FAULT_WIDTH
    const char* start          # the offending text
    const char* stop


cdef enum:
    DECODE_FLOAT
    DECODE_INT
    DECODE_SECONDS
    DECODE_FLAG
    DECODE_SIDE
    # The faults of decoding carry the number of the decoder.
    FAULT_EMPTY
    FAULT_WIDTH
    FAULT_BLANK


class Decode(IntEnum):
    """How the text of a column becomes a number.

    FLOAT    float64, the very double ``float(text)`` gives; finite
    INT      int64
    SECONDS  decimal seconds to int64 milliseconds by exact decimal arithmetic; digits below a
             millisecond are cut off
    FLAG     ``true``/``false`` in any case, ``1``/``0``, to uint8 1/0
    SIDE     ``buy``/``sell`` in any case, the taker's side, to uint8: 1 when the buyer was the
             maker (``sell``), else 0
    """

    FLOAT = DECODE_FLOAT
    INT = DECODE_INT
    SECONDS = DECODE_SECONDS
    FLAG = DECODE_FLAG
    SIDE = DECODE_SIDE


_DTYPES = {
    Decode.FLOAT: np.float64, Decode.INT: np.int64, Decode.SECONDS: np.int64,
    Decode.FLAG: np.uint8, Decode.SIDE: np.uint8,
}
_REASONS = {
    DECODE_FLOAT: "must be a finite decimal number",
    DECODE_INT: "must be a whole number of at most 64 bits",
    DECODE_SECONDS: "must be a number of seconds such as 1692748800.279",
    DECODE_FLAG: "must be true, false, 1 or 0",
    DECODE_SIDE: "must be Buy or Sell",
    FAULT_EMPTY: "must not be empty",
    FAULT_BLANK: "must not be blank: more lines follow",
}


class CsvError(ValueError):
    """A line that cannot be decoded.

    Attributes
    ----------
    row : int
        0-based line of the buffer.
    field : int or None
        0-based field; None when the line as a whole is wrong.
    text : str
        What was there.
    reason : str
        What is wanted, as the end of a sentence.
    """

    def __init__(self, row, field, text, reason):
        self.row = row
        self.field = field
        self.text = text
        self.reason = reason
        where = f"row {row}" if field is None else f"row {row}, field {field}"
        super().__init__(f"{where} {reason}, was {text!r}")


cdef double python_float(const char* start, Py_ssize_t size) noexcept with gil:
    # Correctly rounded by CPython's own parser; infinite where the text overflows a double.
    return float(start[:size])


cdef inline bint push_digit(uint64_t* value, char letter) noexcept nogil:
    # False for anything but a digit, and when the value would leave the range of uint64.
    if not c"0" <= letter <= c"9" or value[0] > 922337203685477580ULL:
        return False
    value[0] = value[0] * 10 + <uint64_t>(letter - c"0")
    return True


cdef bint parse_float(const char* at, const char* stop, double* out) noexcept nogil:
    cdef const char* start = at
    cdef uint64_t mantissa = 0
    cdef int64_t exponent = 0, written = 0
    cdef bint negative = at[0] == c"-", written_negative = False
    cdef bint exact = True, any_digit = False, after_point = False
    if at[0] == c"-" or at[0] == c"+":
        at += 1
    while at < stop:
        if c"0" <= at[0] <= c"9":
            any_digit = True
            exact = exact and push_digit(&mantissa, at[0])
            exponent -= after_point
        elif at[0] == c"." and not after_point:
            after_point = True
        else:
            break
        at += 1
    if not any_digit:
        return False
    if at < stop and (at[0] == c"e" or at[0] == c"E"):
        at += 1
        if at < stop and (at[0] == c"-" or at[0] == c"+"):
            written_negative = at[0] == c"-"
            at += 1
        if at == stop:
            return False
        while at < stop and c"0" <= at[0] <= c"9":
            # No line is long enough to bring an exponent beyond 1e17 back into range.
            if written < 100000000000000000LL:
                written = written * 10 + (at[0] - c"0")
            at += 1
        exponent += -written if written_negative else written
    if at < stop:
        return False
    if exact and mantissa <= 1ULL << 53 and -22 <= exponent <= 22:
        # Both operands are exact doubles, so one operation is one correct rounding.
        if exponent < 0:
            out[0] = <double>mantissa / POWERS_OF_TEN[-exponent]
        else:
            out[0] = <double>mantissa * POWERS_OF_TEN[exponent]
        if negative:
            out[0] = -out[0]
    else:
        out[0] = python_float(start, stop - start)
    return isfinite(out[0]) != 0


cdef inline bint store_signed(uint64_t value, bint negative, int64_t* out) noexcept nogil:
    if value > (1ULL << 63) - (not negative):
        return False
    out[0] = <int64_t>(0 - value if negative else value)
    return True


cdef bint parse_int(const char* at, const char* stop, int64_t* out) noexcept nogil:
    cdef uint64_t value = 0
    cdef bint negative = at[0] == c"-"
    if at[0] == c"-" or at[0] == c"+":
        at += 1
    if at == stop:
        return False
    while at < stop:
        if not push_digit(&value, at[0]):
            return False
        at += 1
    return store_signed(value, negative, out)


cdef bint parse_seconds(const char* at, const char* stop, int64_t* out) noexcept nogil:
    cdef uint64_t value = 0
    cdef int missing = 3       # digits still wanted to make milliseconds
    cdef bint negative = at[0] == c"-", any_digit = False, after_point = False
    if at[0] == c"-" or at[0] == c"+":
        at += 1
    while at < stop:
        if c"0" <= at[0] <= c"9":
            any_digit = True
            if missing > 0:
                if not push_digit(&value, at[0]):
                    return False
                missing -= after_point
        elif at[0] == c"." and not after_point:
            after_point = True
        else:
            return False
        at += 1
    while missing > 0:
        if not push_digit(&value, c"0"):
            return False
        missing -= 1
    return any_digit and store_signed(value, negative, out)


cdef bint is_word(const char* at, const char* stop, const char* word) noexcept nogil:
    # Whether the text is `word` (lower-case ASCII letters) in any case.
    while at < stop and word[0] != 0 and (at[0] | 32) == word[0]:
        at += 1
        word += 1
    return at == stop and word[0] == 0


cdef bint parse_flag(
    const char* at, const char* stop, const char* yes, const char* no, unsigned char* out,
) noexcept nogil:
    out[0] = is_word(at, stop, yes)
    return out[0] or is_word(at, stop, no)


cdef bint store(Column* column, int64_t row, const char* at, const char* stop) noexcept nogil:
    if column.decode == DECODE_FLOAT:
        return parse_float(at, stop, <double*>column.out + row)
    if column.decode == DECODE_INT:
        return parse_int(at, stop, <int64_t*>column.out + row)
    if column.decode == DECODE_SECONDS:
        return parse_seconds(at, stop, <int64_t*>column.out + row)
    if column.decode == DECODE_SIDE:
        return parse_flag(at, stop, b"sell", b"buy", <unsigned char*>column.out + row)
    if stop - at == 1 and (at[0] == c"0" or at[0] == c"1"):
        (<unsigned char*>column.out)[row] = at[0] == c"1"
        return True
    return parse_flag(at, stop, b"true", b"false", <unsigned char*>column.out + row)


cdef const char* field_end(const char* at, const char* stop) noexcept nogil:
    cdef bint quoted = False
    if at < stop and at[0] == c'"':
        while at < stop and (quoted or at[0] != c","):
            if at[0] == c'"':
                quoted = not quoted
            at += 1
    else:
        while at < stop and at[0] != c",":
            at += 1
    return at


cdef bint only_line_ends(const char* at, const char* stop) noexcept nogil:
    while at < stop and (at[0] == c"\n" or at[0] == c"\r"):
        at += 1
    return at == stop


cdef int64_t scan_rows(
    const char* at, const char* stop, Column* columns, int n_columns, int64_t n_fields,
    Fault* fault,
) noexcept nogil:
    # Fills the columns and returns the number of rows, or -1 with `fault` set.
    cdef const char* line_end  # without the line break
    cdef const char* next_line
    cdef const char* left
    cdef const char* right
    cdef int64_t field
    cdef int column
    fault.row = 0
    while at < stop:
        fault.start = at
        line_end = <const char*>memchr(at, c"\n", stop - at)
        if line_end == NULL:
            line_end = stop
        next_line = line_end + 1
        if line_end > at and (line_end - 1)[0] == c"\r":
            line_end -= 1
        if line_end == at:
            if only_line_ends(at, stop):
                break
            fault.reason, fault.stop = FAULT_BLANK, at
            return -1
        field = column = 0
        while True:
            left = at
            at = right = field_end(at, line_end)
            if column < n_columns and columns[column].index == field:
                if right - left >= 2 and left[0] == c'"' and (right - 1)[0] == c'"':
                    left += 1
                    right -= 1
                if left == right or not store(&columns[column], fault.row, left, right):
                    fault.reason = FAULT_EMPTY if left == right else columns[column].decode
                    fault.field, fault.start, fault.stop = field, left, right
                    return -1
                column += 1
            field += 1
            if at == line_end:
                break
            at += 1
        if field != n_fields:
            fault.reason, fault.field, fault.stop = FAULT_WIDTH, field, line_end
            return -1
        at = next_line
        fault.row += 1
    return fault.row


cdef int64_t count_lines(const char* at, const char* stop) noexcept nogil:
    # The last line may lack its line break, so one more than there are of those.
    cdef int64_t n = 1
    while at < stop:
        at = <const char*>memchr(at, c"\n", stop - at)
        if at == NULL:
            break
        at += 1
        n += 1
    return n


def scan(const unsigned char[::1] data not None, columns, Py_ssize_t n_fields):
    """Decode the wanted columns of whole CSV lines.

    Lines end in ``\\n`` or ``\\r\\n``, the last one may lack it; blank lines are allowed at the end
    of the buffer only. A field may stand in double quotes, and then hold commas but no line break.
    Numbers are plain ASCII decimals without blanks or underscores.

    Parameters
    ----------
    data : bytes-like
        Whole lines, without a header.
    columns : sequence of (int, Decode)
        0-based field and how to decode it, in ascending order of the field; at most 16.
    n_fields : int
        The number of fields every line must have.

    Returns
    -------
    list of ndarray, each of shape (rows,)
        One fresh array a column: float64, int64 or uint8, see Decode.

    Raises
    ------
    CsvError
        At the first line with a wrong number of fields, or a field that is empty or does not
        decode.
    ValueError
        If ``columns`` is not ascending and within 0 … n_fields - 1.
    """
    cdef Column[16] wanted
    cdef Fault fault
    cdef char[::1] room
    cdef const char* start = NULL
    cdef const char* stop = NULL
    cdef int n_columns = len(columns)
    cdef int64_t n_rows
    cdef int i
    fields = [field for field, _ in columns]
    ascending = fields == sorted(set(fields))
    if not (0 < n_columns <= 16 and ascending and min(fields) >= 0 and max(fields) < n_fields):
        raise ValueError(f"columns must be 1 to 16 ascending fields below {n_fields}, was {fields}")
    if data.shape[0]:
        start = <const char*>&data[0]
        stop = start + data.shape[0]
    n_rows = count_lines(start, stop)
    arrays = [np.empty(n_rows, _DTYPES[decode]) for _, decode in columns]
    for i in range(n_columns):
        room = arrays[i].view(np.int8)
        wanted[i].index, wanted[i].decode, wanted[i].out = fields[i], columns[i][1], &room[0]
    with nogil:
        n_rows = scan_rows(start, stop, wanted, n_columns, n_fields, &fault)
    if n_rows < 0:
        text = fault.start[:fault.stop - fault.start].decode("utf-8", "replace")
        if fault.reason == FAULT_WIDTH:
            raise CsvError(fault.row, None, text, f"must have {n_fields} fields, not {fault.field}")
        field = None if fault.reason == FAULT_BLANK else fault.field
        raise CsvError(fault.row, field, text, _REASONS[fault.reason])
    return [array[:n_rows] for array in arrays]
