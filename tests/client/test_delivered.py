"""A number that was delivered before is a repetition if its candle is the same, and a new numbering if it is not."""

from __future__ import annotations

from market_data_tick_handler.client.delivered import Delivered, Numbering
from tests.client.made import message


def delivered(count: int, remembered: int = 512) -> Delivered:
    made = Delivered(remembered=remembered)
    for index in range(count):
        made.note(message(index))
    return made


def test_the_same_candle_under_its_number_is_a_repetition() -> None:
    assert delivered(10).judge(message(4)) is Numbering.SAME


def test_another_candle_under_a_delivered_number_means_that_numbers_began_anew() -> None:
    assert delivered(10).judge(message(11, number=3)) is Numbering.OTHER
    assert delivered(10).judge(message(4, number=5, revision=1)) is Numbering.OTHER


def test_beyond_what_is_remembered_only_a_candle_that_is_certainly_new_means_so() -> None:
    known = delivered(10, remembered=3)
    assert known.judge(message(1)) is Numbering.UNSURE
    assert known.judge(message(12, number=2)) is Numbering.OTHER
    assert known.judge(message(9, number=2, revision=0)) is Numbering.UNSURE


def test_a_revision_is_new_until_it_or_a_newer_one_was_delivered() -> None:
    known = delivered(3)
    assert known.has(message(2)) and not known.has(message(2, revision=1))
    known.note(message(2, number=4, revision=2))
    assert known.has(message(2, revision=1)) and known.has(message(2, revision=2))
    assert known.revision(message(2).timestamp) == 2
    assert known.newest == message(2).timestamp


def test_before_anything_was_delivered_nothing_is_certain() -> None:
    assert Delivered().judge(message(5)) is Numbering.UNSURE


def test_numbers_that_began_anew_are_compared_with_each_other_only() -> None:
    known = delivered(10)
    known.forget_numbers()
    known.note(message(10, number=1))
    assert known.judge(message(10, number=1)) is Numbering.SAME
    assert known.stands_at(1, message(10).timestamp) and not known.stands_at(2, message(1).timestamp)
