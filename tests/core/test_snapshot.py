"""A state survives its bytes; bytes that are not a whole snapshot are refused, never half loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core import snapshot
from market_data_tick_handler.errors import CorruptObject

RECORD = np.dtype([("t0", "i8"), ("price", "f8"), ("grid", "f8", (2, 3))])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(max_size=8)
trees = st.recursive(
    scalars, lambda node: st.lists(node, max_size=4) | st.dictionaries(st.text(max_size=4), node), max_leaves=12
)


@given(trees)
def test_a_tree_of_scalars_comes_back(tree: Any) -> None:
    assert snapshot.unpack(snapshot.pack(tree)) == tree


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.arange(12)[::3],
        np.zeros(0),
        np.zeros((0, 4), np.uint8),
        np.array(5.0),
        np.array([np.nan, -np.inf, -0.0]),
        np.array([2**64 - 1], np.uint64),
        np.array([True, False]),
        np.zeros(3, RECORD),
    ],
    ids=str,
)
def test_an_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    back = snapshot.unpack(snapshot.pack({"a": array}))["a"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_arrays_come_back_apart_from_each_other_and_writable() -> None:
    array = np.arange(3)
    first, second = snapshot.unpack(snapshot.pack([array, array]))
    first[0] = 9
    assert second[0] == array[0] == 0


def test_tuples_come_back_as_lists_and_numpy_scalars_as_numbers() -> None:
    back = snapshot.unpack(snapshot.pack({"pair": (1, np.int64(2)), "flag": np.bool_(True), "x": np.float64(0.1)}))
    assert back == {"pair": [1, 2], "flag": True, "x": 0.1}
    assert isinstance(back["pair"][1], int)


def test_the_same_state_gives_the_same_bytes() -> None:
    tree = {"a": np.arange(4), "b": [1.5, None]}
    assert snapshot.pack(tree) == snapshot.pack({"a": np.arange(4), "b": [1.5, None]})


def test_a_snapshot_cut_anywhere_is_refused() -> None:
    data = snapshot.pack({"a": np.arange(4), "text": "x", "b": np.zeros(2, RECORD)})
    for size in range(len(data)):
        with pytest.raises(CorruptObject):
            snapshot.unpack(data[:size])


@pytest.mark.parametrize("data", [b"", b"PAR1" * 10, b"MDTHSNAP" + b"\x63" + b"\0" * 40])
def test_bytes_of_another_kind_or_version_are_refused_with_what_was_expected(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="expected"):
        snapshot.unpack(data)
