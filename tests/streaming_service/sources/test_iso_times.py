"""Times as Tardis writes them become the microseconds that the standard library reads in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_service.sources.iso_times import NO_TIME, iso_text, iso_us, utc_datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
# Enough texts that they are read together.
MANY = 100


def written(moment: datetime, digits: int) -> str:
    fraction = f"{moment.microsecond:06}0000"[:digits]
    return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' if digits else ''}{fraction}Z"


def expected(moment: datetime, digits: int) -> int:
    kept = moment.microsecond - moment.microsecond % 10 ** max(0, 6 - digits)
    return (moment.replace(microsecond=kept) - EPOCH) // timedelta(microseconds=1)


@given(st.lists(st.tuples(MOMENTS, st.sampled_from([0, 1, 3, 6, 7, 9])), min_size=1, max_size=20))
def test_few_and_many_texts_of_any_widths_are_read_alike(moments: list[tuple[datetime, int]]) -> None:
    texts = [written(moment, digits) for moment, digits in moments]
    wanted = [expected(moment, digits) for moment, digits in moments]
    assert iso_us(texts).tolist() == wanted
    assert iso_us(texts * MANY).tolist() == wanted * MANY


@pytest.mark.parametrize(
    "text",
    [
        "", "Z", "2024-01-01", "2024-01-01T00:00:00.123", "2024-01-01 00:00:00.123Z", "2024-13-01T00:00:00.123Z",
        "2024-02-30T00:00:00.123Z", "2024-01-01T24:00:00.123Z", "2024-01-01T00:60:00.123Z", "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00.12xZ", "2024-01-01T00:00:00,123Z", "2024-01-01T00:00:00.123+00:00", "0000-01-01T00:00:00Z",
        "2024-01-01T00:00:00.123é", "2024-01-01T00:00:00.0123456789Z", "2024-W01-1T00:00:00.12Z",
    ],
)  # fmt: skip
def test_what_is_no_such_time_is_none_wherever_it_stands(text: str) -> None:
    good = "2024-01-01T00:00:00.123Z"
    assert iso_us([text]).tolist() == [NO_TIME]
    together = iso_us([good] * MANY + [text] + [good] * MANY)
    assert together[MANY] == NO_TIME
    assert set(together.tolist()) == {1_704_067_200_123_000, NO_TIME}


def test_no_texts_give_no_times() -> None:
    assert iso_us([]).tolist() == []


@given(MOMENTS)
def test_a_written_time_is_read_back(moment: datetime) -> None:
    time_us = expected(moment, 6)
    assert iso_us([iso_text(time_us)]).tolist() == [time_us]
    assert utc_datetime(time_us) == moment
