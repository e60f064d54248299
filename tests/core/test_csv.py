import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passivx._core.csv import CsvError, Decode, scan
from tests.reference import csv_twin

COLUMNS = [(0, Decode.INT), (1, Decode.FLOAT), (3, Decode.SECONDS), (4, Decode.FLAG)]


def one(text, how):
    (column,) = scan(text.encode(), [(0, how)], 1)
    assert len(column) == 1
    return column[0].item()


def bits(x):
    return struct.pack("<d", x)


def test_decodes_the_wanted_columns_into_typed_arrays():
    ids, price, time, flag = scan(b"1,0.5,skip,2.5,true\n-2,1e3,,.001,0\n", COLUMNS, 5)
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, -2]
    assert price.dtype == np.float64
    assert price.tolist() == [0.5, 1000.0]
    assert time.dtype == np.int64
    assert time.tolist() == [2500, 1]
    assert flag.dtype == np.uint8
    assert flag.tolist() == [1, 0]


@pytest.mark.parametrize(
    "data", [b"1,2", b"1,2\n", b"1,2\r\n", b"1,2\n\n", b"1,2\r\n\r\n\n", b'"1","2"']
)
def test_line_ends_quotes_and_a_missing_last_line_break(data):
    assert [x.tolist() for x in scan(data, [(0, Decode.INT), (1, Decode.INT)], 2)] == [[1], [2]]


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\r\n"])
def test_nothing_gives_empty_columns(data):
    assert scan(data, [(0, Decode.INT)], 1)[0].shape == (0,)


def test_a_quoted_field_may_hold_commas():
    assert scan(b'"a,""b"",c",7\n', [(1, Decode.INT)], 2)[0].tolist() == [7]


def test_reads_any_buffer():
    for data in (bytearray(b"5\n"), memoryview(b"5\n")):
        assert scan(data, [(0, Decode.INT)], 1)[0].tolist() == [5]


FLOATS = """
    0 -0.0 +1 1. .5 00012.50 61800.30 0.1 0.00000001 1e5 1E-5 1e+22 1e23 8.5e22 9007199254740992
    9007199254740993 9007199254740993.5 9007199254740991e22 0.30000000000000004
    123456789012345678901 1234567890123456789e-19 0.000000000000000000000000000000000000001e39
    0e999999999999999999999 2.2250738585072011e-308 5e-324 1e-400 1.7976931348623157e308
"""


@pytest.mark.parametrize("text", FLOATS.split())
def test_floats_are_those_of_python(text):
    assert bits(one(text, Decode.FLOAT)) == bits(float(text))


def test_a_float_of_very_many_digits():
    assert one("0." + "0" * 5000 + "1e5001", Decode.FLOAT) == 1.0
    assert one("1" + "0" * 5000 + "e-5000", Decode.FLOAT) == 1.0


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1692748800.279", 1692748800279),
        ("1651449601", 1651449601000),
        ("1621036794.507791", 1621036794507),
        ("1787356800.2296", 1787356800229),
        # float(text) * 1000 gives ...057.9998 for this one.
        ("1569974394.058", 1569974394058),
        ("0.0009999", 0),
        ("-1.5", -1500),
        ("9223372036854775.807", 2**63 - 1),
    ],
)
def test_seconds_become_whole_milliseconds(text, ms):
    assert one(text, Decode.SECONDS) == ms


@pytest.mark.parametrize("text", ["9223372036854775807", "-9223372036854775808", "+0", "007"])
def test_whole_numbers(text):
    assert one(text, Decode.INT) == int(text)


@pytest.mark.parametrize("how", [Decode.FLAG, Decode.SIDE])
def test_words_in_any_case(how):
    words = csv_twin.FLAGS if how == Decode.FLAG else csv_twin.SIDES
    for word, value in words.items():
        for text in (word, word.upper(), word.title()):
            assert one(text, how) == value


BAD = {
    Decode.FLOAT: "nan NaN inf -inf Infinity 1e400 abc 1.2.3 1e 1e+ e5 . - +. 1_0 0x1 --1 1,5 1٣",
    Decode.INT: "9223372036854775808 -9223372036854775809 99999999999999999999999 1.0 1e5 - x 1_0",
    Decode.SECONDS: "9223372036854775.808 1e9 1.2.3 . - nan 1.5s",
    Decode.FLAG: "yes t truee tru 2 00 -1 Buy",
    Decode.SIDE: "b sel sells true 1 0 \x13ell",
}


@pytest.mark.parametrize(
    ("how", "text"), [(how, x) for how, row in BAD.items() for x in row.split(" ")]
)
def test_refuses_what_is_not_a_value(how, text):
    with pytest.raises(CsvError) as e:
        scan(f'ok,"{text}"\n'.encode(), [(1, how)], 2)
    assert (e.value.row, e.value.field, e.value.text) == (0, 1, text)
    assert "must be" in e.value.reason


@pytest.mark.parametrize(
    ("data", "row", "field", "message"),
    [
        (b"1,2\n3,\n", 1, 1, "row 1, field 1 must not be empty, was ''"),
        (b'1,2\n"",5\n', 1, 0, "row 1, field 0 must not be empty, was ''"),
        (b"1,2\n3\n", 1, None, "row 1 must have 2 fields, not 1, was '3'"),
        (b"1,2,3\n", 0, None, "row 0 must have 2 fields, not 3, was '1,2,3'"),
        (b"1,2,\n", 0, None, "row 0 must have 2 fields, not 3, was '1,2,'"),
        (b"1,2\n\n3,4\n", 1, None, "row 1 must not be blank: more lines follow, was ''"),
        (b"1, 2\n", 0, 1, "row 0, field 1 must be a whole number of at most 64 bits, was ' 2'"),
        (
            b"1,\xff\n",
            0,
            1,
            "row 0, field 1 must be a whole number of at most 64 bits, was '\ufffd'",
        ),
    ],
)
def test_says_where_and_what(data, row, field, message):
    with pytest.raises(CsvError) as e:
        scan(data, [(0, Decode.INT), (1, Decode.INT)], 2)
    assert str(e.value) == message
    assert (e.value.row, e.value.field) == (row, field)


@pytest.mark.parametrize("fields", [[], [1, 0], [0, 0], [-1], [2], list(range(17))])
def test_refuses_columns_out_of_order(fields):
    n_fields = 17 if len(fields) > 2 else 2
    with pytest.raises(ValueError, match="columns must be 1 to 16 ascending fields"):
        scan(b"1,2\n", [(k, Decode.INT) for k in fields], n_fields)


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map("{:.17e}".format),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12).map(
        str
    ),
    st.from_regex(csv_twin.FLOAT, fullmatch=True),
)


@given(numbers)
@settings(max_examples=1000, deadline=None)
def test_every_float_text_is_bit_equal_to_float(text):
    if math.isinf(float(text)):
        with pytest.raises(CsvError):
            one(text, Decode.FLOAT)
    else:
        assert bits(one(text, Decode.FLOAT)) == bits(float(text))


@given(st.integers(0, 2**54), st.integers(-30, 30))
@settings(max_examples=1000, deadline=None)
def test_both_sides_of_the_exact_fast_path(mantissa, exponent):
    for text in (f"{mantissa}e{exponent}", f"-{mantissa}E{exponent:+}"):
        assert bits(one(text, Decode.FLOAT)) == bits(float(text))


line = st.tuples(
    st.integers(-(2**64), 2**64).map(str),
    numbers,
    st.sampled_from(["", "x", '"a,b"', '"', 'q"']),
    st.one_of(st.from_regex(csv_twin.SECONDS, fullmatch=True), st.integers(0, 2**60).map(str)),
    st.sampled_from(["true", "False", "1", "0", "TRUE", "2"]),
).map(",".join)


@given(
    st.lists(line, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(list('\n\r,"0-.ex')), st.booleans()),
        max_size=2,
    ),
)
@settings(max_examples=600, deadline=None)
def test_equals_the_twin_on_good_and_mutated_lines(lines, line_end, edits):
    data = line_end.join(lines)
    for at, letter, insert in edits:
        data = data[:at] + letter + data[at + (not insert) :]
    want = csv_twin.scan(data, [(k, how.name) for k, how in COLUMNS], 5)
    if isinstance(want, csv_twin.Fault):
        with pytest.raises(CsvError) as e:
            scan(data.encode(), COLUMNS, 5)
        assert (e.value.row, e.value.field) == (want.row, want.field)
        return
    ids, price, time, flag = scan(data.encode(), COLUMNS, 5)
    assert [ids.tolist(), time.tolist(), flag.tolist()] == [want[0], want[2], want[3]]
    assert price.tobytes() == np.array(want[1], np.float64).tobytes()
