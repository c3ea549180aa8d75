"""Ids as 64-bit integers: which texts are numbers, and that hashes never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ids import encode_id_texts, encode_ids, hash_text, hash_texts, id_texts
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, ID_NONE


@pytest.mark.parametrize("text", ["0", "7", "3735683259", "123456789012345678"])
def test_canonical_decimals_are_integers(text: str) -> None:
    ids, kinds = encode_id_texts([text])
    assert (int(ids[0]), int(kinds[0])) == (int(text), ID_INTEGER)


@pytest.mark.parametrize("text", ["00", "01", "-1", "+1", "1.0", " 1", "1234567890123456789", "a", "é"])
def test_any_other_text_is_a_hash(text: str) -> None:
    ids, kinds = encode_id_texts([text])
    assert (int(ids[0]), int(kinds[0])) == (hash_text(text), ID_HASH)


def test_no_text_is_no_id() -> None:
    ids, kinds = encode_id_texts(["", "1", ""])
    assert ids.tolist() == [0, 1, 0]
    assert kinds.tolist() == [ID_NONE, ID_INTEGER, ID_NONE]
    assert encode_id_texts([])[0].tolist() == []


def test_hashes_are_stable_because_stored_files_rely_on_them() -> None:
    assert hash_text("ccc3c1fa-212c-e8b0-1706-9b9c4f3d5ecf") == -6551391817842546191
    assert hash_text("01") == 8187358003924344943


def test_hashing_agrees_with_the_written_definition() -> None:
    mask = (1 << 64) - 1

    def reference(text: str) -> int:
        h = 0xCBF29CE484222325
        for byte in text.encode():
            h = ((h ^ byte) * 0x100000001B3) & mask
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            h = ((h ^ (h >> 33)) * factor) & mask
        h ^= h >> 33
        return h - (1 << 64) if h >> 63 else h

    for text in ("a", "BTC-PERPETUAL", "x" * 100, "ü"):
        assert hash_text(text) == reference(text)


@given(st.lists(st.text(max_size=30)))
def test_buffers_and_lists_give_the_same(texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    offsets = np.array([0, *np.cumsum([len(raw) for raw in encoded])], np.int32)
    from_buffers = encode_ids(offsets, np.frombuffer(b"".join(encoded), np.uint8).copy())
    from_list = encode_id_texts(texts)
    assert from_buffers[0].tolist() == from_list[0].tolist()
    assert from_buffers[1].tolist() == from_list[1].tolist()


@given(st.lists(st.text(max_size=30)))
def test_the_stored_form_of_ids_decodes_to_the_same_ids(texts: list[str]) -> None:
    ids, kinds = encode_id_texts(texts)
    again = encode_id_texts(id_texts(ids, kinds))
    assert again[0].tolist() == ids.tolist()
    assert again[1].tolist() == kinds.tolist()


def test_symbols_are_hashed_even_when_they_look_like_numbers() -> None:
    assert hash_texts(["12", "", "BTC"]).tolist() == [hash_text("12"), 0, hash_text("BTC")]
    assert hash_text("12") != 12
