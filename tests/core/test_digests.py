"""Digests of rows: one content, one digest; another bit anywhere, another digest."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from market_data_tick_handler.core.digests import digests


def test_a_digest_is_blake2b_of_the_bytes_of_its_row() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, 37)).astype(np.uint8)
    found = digests(rows)
    assert found.shape == (5, 2) and found.dtype == np.uint64
    for row, digest in zip(rows, found, strict=True):
        assert digest.tobytes() == blake2b(row.tobytes(), digest_size=16).digest()


def test_every_byte_counts_and_the_layout_in_memory_does_not() -> None:
    rows = np.arange(60, dtype=np.uint8).reshape(2, 30)
    first = digests(rows)
    assert np.array_equal(digests(np.asfortranarray(rows)), first)
    assert np.array_equal(digests(np.repeat(rows, 2, axis=0)[::2]), first)
    for at in range(30):
        changed = rows.copy()
        changed[1, at] ^= 1
        found = digests(changed)
        assert np.array_equal(found[0], first[0]) and not np.array_equal(found[1], first[1])


def test_no_rows_have_no_digests() -> None:
    assert digests(np.zeros((0, 8), np.uint8)).shape == (0, 2)
