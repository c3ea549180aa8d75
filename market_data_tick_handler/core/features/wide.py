"""Exact sums of squares of integers: a 128-bit accumulator in two words, so that no delay or silence overflows it."""

from __future__ import annotations

from numba import njit

_SMALL = 3_000_000_000  # its square fits an int64


@njit(cache=True, nogil=True, inline="always")
def add_square(low: int, high: int, x: int) -> tuple[int, int]:
    """(low, high) + x*x, where the value is high * 2**63 + low and 0 <= low < 2**63."""
    a = abs(x)
    if a < _SMALL:
        low, carry = _add63(low, a * a)
        return low, high + carry
    return _add_large_square(low, high, a)


@njit(cache=True, nogil=True, inline="always")
def _add63(low: int, term: int) -> tuple[int, int]:
    room = 0x7FFFFFFFFFFFFFFF - low
    if term > room:
        return term - room - 1, 1
    return low + term, 0


@njit(cache=True, nogil=True)
def _add_large_square(low: int, high: int, a: int) -> tuple[int, int]:
    low2, high2 = multiply(a, a)
    return add(low, high, low2, high2)


@njit(cache=True, nogil=True)
def add(low: int, high: int, low2: int, high2: int) -> tuple[int, int]:
    """Sum of two such values."""
    low, carry = _add63(low, low2)
    return low, high + high2 + carry


@njit(cache=True, nogil=True)
def multiply(a: int, b: int) -> tuple[int, int]:
    """Product of two non-negative integers below 2**62."""
    # Halves of 31 and 32 bits: no partial product reaches 2**63.
    a1 = a >> 32
    a0 = a & 0xFFFFFFFF
    b1 = b >> 31
    b0 = b & 0x7FFFFFFF
    low = a0 * b0
    high = 0
    low, carry = _add63(low, (a0 * b1 & 0xFFFFFFFF) << 31)
    high += carry + (a0 * b1 >> 32)
    cross = a1 * b0
    low, carry = _add63(low, (cross & 0x7FFFFFFF) << 32)
    high += carry + (cross >> 31)
    return low, high + a1 * b1


@njit(cache=True, nogil=True)
def subtract(low: int, high: int, low2: int, high2: int) -> tuple[int, int]:
    """Difference of two such values; the first is not smaller."""
    if low >= low2:
        return low - low2, high - high2
    return low + (0x7FFFFFFFFFFFFFFF - low2) + 1, high - high2 - 1


@njit(cache=True, nogil=True)
def sample_std(n: int, total: int, low: int, high: int) -> float:
    """sqrt((n * S2 - S1**2) / (n * (n - 1))) of n >= 2 integers with sum `total` and squares (low, high).

    With c = |S1| // n and r = |S1| - c*n the numerator over n is S2 - c*(|S1| + r) - r*r/n: everything large is exact.
    """
    a = abs(total)
    c = a // n
    r = a - c * n
    low2, high2 = multiply(c, a + r)
    low, high = subtract(low, high, low2, high2)
    deviations = high * 9223372036854775808.0 + low - float(r) * float(r) / n
    return (max(deviations, 0.0) / (n - 1)) ** 0.5
