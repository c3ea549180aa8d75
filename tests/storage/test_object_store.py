"""Object stores: one behaviour on disk and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from market_data_tick_handler.errors import ConfigError, NotFound, NotInstalled
from market_data_tick_handler.storage.local_files import local_path, local_root
from market_data_tick_handler.storage.object_store import ObjectStore, open_store

KEY = "raw/day-2024-08-08/BINANCE:SPOT_PAIR:BTC-USDT.parquet"


@pytest.fixture(params=["path", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return open_store({"path": str(tmp_path), "file": tmp_path.as_uri(), "memory": "memory://"}[request.param])


def test_objects_come_back_whole_and_in_ranges(store: ObjectStore) -> None:
    assert store.put(KEY, b"0123456789")
    assert store.get(KEY) == b"0123456789"
    assert store.get(KEY, start=2, length=3) == b"234"
    assert store.get(KEY, start=7) == b"789"


def test_put_if_absent_leaves_what_is_there(store: ObjectStore) -> None:
    assert store.put(KEY, b"first", if_absent=True)
    assert not store.put(KEY, b"second", if_absent=True)
    assert store.get(KEY) == b"first"
    assert store.put(KEY, b"third")
    assert store.get(KEY) == b"third"


def test_list_gives_paths_below_a_prefix_in_order(store: ObjectStore) -> None:
    for path in ("b/2", "b/1", "a/1", "bb/1"):
        store.put(path, b"")
    assert list(store.list("b")) == ["b/1", "b/2"]
    assert list(store.list()) == ["a/1", "b/1", "b/2", "bb/1"]
    assert list(store.list("none")) == []


def test_delete_is_silent_about_what_is_not_there(store: ObjectStore) -> None:
    store.put(KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    with pytest.raises(NotFound, match="no object raw/"):
        store.get(KEY)


def test_an_object_on_disk_is_the_file_of_that_name(tmp_path: Path) -> None:
    open_store(tmp_path).put(KEY, b"x")
    assert (tmp_path / KEY).read_bytes() == b"x"


def test_unknown_schemes_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="file://, memory://, s3://, gs://"):
        open_store("ftp://host/x")


def test_local_path_is_none_for_remote_stores(tmp_path: Path) -> None:
    assert local_path(tmp_path.as_uri()) == tmp_path
    assert local_path("data") == Path("data")
    assert local_path("s3://bucket/x") is None
    with pytest.raises(NotInstalled, match="local disk only"):
        local_root("s3://bucket/x")
