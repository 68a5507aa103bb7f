"""Numbers in reports: three digits, the right unit, never `1000 k`; names that fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.report.numbers import (
    bytes_text,
    count_text,
    energy_text,
    milliseconds_text,
    percent_text,
    shorten,
)

DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
BINARY = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count_text(0), "0"),
        (count_text(812), "812"),
        (count_text(1_234_567), "1.23 M"),
        (count_text(999_499), "999 k"),
        (count_text(999_500), "1.00 M"),
        (count_text(69.94), "69.9"),
        (count_text(0.123456), "0.123"),
        (bytes_text(12_595), "12.3 KiB"),
        (bytes_text(1023), "1023 B"),
        (bytes_text(1024), "1.00 KiB"),
        (bytes_text(1024**2 - 1), "1.00 MiB"),
        (milliseconds_text(4.56), "4.56 ms"),
        (milliseconds_text(0.0456), "45.6 us"),
        (milliseconds_text(1200), "1.20 s"),
        (energy_text(312e6), "312 uJ"),
        (energy_text(4.2e9), "4.20 mJ"),
        (percent_text(0), "0 %"),
        (percent_text(0.0001), "<0.1 %"),
        (percent_text(0.12), "12.0 %"),
        (percent_text(0.9996), "100 %"),
        (percent_text(1), "100 %"),
    ],
)
def test_numbers_read_as_written(shown: str, expected: str) -> None:
    assert shown == expected


@given(st.integers(0, 10**17))
def test_a_count_reads_back(value: int) -> None:
    number, _, unit = count_text(value).partition(" ")
    assert float(number) * DECIMAL[unit] == pytest.approx(value, rel=0.00501)
    assert float(number) < 1000


@given(st.integers(0, 2**49))
def test_a_size_reads_back(value: int) -> None:
    number, _, unit = bytes_text(value).partition(" ")
    assert float(number) * BINARY[unit] == pytest.approx(value, rel=0.00501)
    assert float(number) < 1024


@given(st.text(max_size=80), st.integers(0, 60))
def test_a_shortened_name_fits_and_prints(name: str, width: int) -> None:
    short = shorten(name, width)
    assert len(short) <= max(width, 0)
    assert short.isprintable()
    if len(name) <= width and name.isprintable():
        assert short == name


def test_a_name_is_cut_in_the_middle() -> None:
    assert shorten("/features/12/conv/Conv", 15) == "/featu...v/Conv"
    assert shorten("a\x1b[31mb\nc", 20) == "a?[31mb?c"
