"""What a service tells beside its frames is read back as it was told, whatever happened to the end of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.events import Gap, GapEnding, GapKind, Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.snapshot import pack
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject
from market_data_tick_handler.storage.recovery.framing import frame
from market_data_tick_handler.testing import trades
from streaming_service.run_log import (
    GapKnown,
    InstrumentBegan,
    InstrumentEnded,
    RecordedSource,
    RowsFetched,
    RunBegan,
    RunLog,
    SourceSwitched,
    TimeframesChanged,
    read_runs,
)

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
T0 = 1_704_067_200_000_000 + 3_600_000_000
SOURCES = (RecordedSource("f", "exchange", "exchange-f"), RecordedSource("f", "tardis_realtime", "tardis_realtime-f"))
OPTIONS = PipelineOptions(
    timeframes=(Timeframe.S15, Timeframe.M1),
    grace_us=250_000,
    groups=("ohlcv", "flow"),
    parameters=FeatureParameters(vpin_bucket_volume=3.0),
    config_hash="abc",
)


def pipeline(options: PipelineOptions = OPTIONS) -> Pipeline:
    made = Pipeline(replace(parse_instrument_key(BTC), contract_size=7.0), options)
    made.start(T0)
    made.feed(Rows(BTC, trades([1.0, 2.0, 3.0], start_us=T0 + 1_000_000)))
    return made


def test_every_record_is_read_back_as_it_was_told(tmp_path: Path) -> None:
    it, fed = RunLog(tmp_path, started_us=T0), pipeline()
    missing = trades([5.0, 6.0], start_us=T0 + 9)
    gap = Gap(BTC, DataType.TRADES, T0 + 5, T0 + 10, "disconnect")
    it.run_began(SOURCES)
    it.began(fed, at_us=T0 + 1, resumed=True)
    it.switched("f", "tardis_realtime", T0 + 2)
    it.fetched(gap, missing)
    fed.know([*fed.gaps, replace(gap, ending=GapEnding.REPAIRED)])
    it.noted(fed)
    it.noted(fed)
    it.changed(pipeline(replace(OPTIONS, timeframes=(Timeframe.M5,))))
    it.ended(fed, finished=True)
    it.close()
    run, began, started, switched, fetched, repaired, changed, ended = read_runs(tmp_path)
    assert run == RunBegan(T0, SOURCES)
    assert isinstance(began, InstrumentBegan)
    assert began.options == OPTIONS
    assert (began.instrument, began.at_us, began.resumed, began.contract_size) == (BTC, T0 + 1, True, 7.0)
    again = Pipeline(parse_instrument_key(BTC), began.options)
    again.restore(began.state)
    again.restore_ids(began.ids)
    assert (again.snapshot(), again.ids_snapshot()) == (began.state, began.ids)
    assert isinstance(started, GapKnown) and started.gap.kind is GapKind.NOT_RUNNING
    assert switched == SourceSwitched("f", "tardis_realtime", T0 + 2)
    assert isinstance(fetched, RowsFetched) and fetched.gap == gap
    for name, column in missing.columns.items():
        np.testing.assert_array_equal(fetched.rows[name], column)
    assert repaired == GapKnown(replace(gap, ending=GapEnding.REPAIRED))
    assert changed == TimeframesChanged(BTC, fed.clock_us, (Timeframe.M5,))
    assert ended == InstrumentEnded(BTC, fed.clock_us, NEVER_US, True)


def test_a_service_that_never_ran_leaves_nothing(tmp_path: Path) -> None:
    it = RunLog(tmp_path / "service", started_us=T0)
    it.run_began(SOURCES)
    it.close()
    assert not (tmp_path / "service").exists()
    assert list(read_runs(tmp_path / "service")) == []


def test_starts_follow_each_other_in_time(tmp_path: Path) -> None:
    for started_us in (T0 + 10**15, T0):
        it = RunLog(tmp_path, started_us=started_us)
        it.run_began(SOURCES)
        it.began(pipeline(), at_us=started_us, resumed=False)
        it.close()
    began = [record.at_us for record in read_runs(tmp_path) if isinstance(record, RunBegan)]
    assert began == [T0, T0 + 10**15]


def written(tmp_path: Path) -> Path:
    it = RunLog(tmp_path, started_us=T0)
    it.run_began(SOURCES)
    it.began(pipeline(), at_us=T0, resumed=False)
    it.ended(pipeline(), finished=False)
    it.close()
    (path,) = tmp_path.iterdir()
    return path


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_end_costs_the_torn_record_only(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path)
    whole = list(read_runs(tmp_path))
    path.write_bytes(path.read_bytes()[:-cut])
    kept = list(read_runs(tmp_path))
    assert [type(record) for record in kept] == [type(record) for record in whole[:-1]]


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptObject, match="fails its checksum"):
        list(read_runs(tmp_path))


def test_a_record_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + frame(T0, pack({"kind": "Telepathy"})))
    with pytest.raises(CorruptObject, match="a newer version wrote it"):
        list(read_runs(tmp_path))


def test_a_disk_that_fails_stops_the_log_and_not_the_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    it = RunLog(blocked / "service", started_us=T0)
    it.run_began(SOURCES)
    it.began(pipeline(), at_us=T0, resumed=False)
    it.ended(pipeline(), finished=False)
    it.close()
    assert it.failed and it.written_bytes == 0
    assert len([record for record in caplog.records if "stops" in record.message]) == 1
