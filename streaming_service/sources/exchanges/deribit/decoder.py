"""Deribit's frames to tick columns: gathers what belongs together, keeps the books and the tickers of a connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch, concat
from streaming_service.sources.exchanges.deribit.books import ChainedBook, is_book
from streaming_service.sources.exchanges.deribit.channels import Topic, Topics
from streaming_service.sources.exchanges.deribit.frames import (
    BOOK,
    SUBSCRIPTION,
    TRADES,
    Data,
    Frame,
    Trade,
    read_frames,
    violation,
)
from streaming_service.sources.exchanges.deribit.tickers import ContractState, OptionTerms, option_rows
from streaming_service.sources.exchanges.deribit.trades import (
    INCOMPLETE,
    UNKNOWN_LIQUIDATION,
    complete_trades,
    liquidation_rows,
    trade_numbers,
    trade_rows,
)
from streaming_service.sources.exchanges.protocol import Decoded, Numbers, Stream


@dataclass(slots=True)
class _Trades:
    """The trades of one instrument, frame by frame; `frames`: which frames they are."""

    topic: Topic
    frames: list[int] = field(default_factory=list)
    lists: list[list[Trade]] = field(default_factory=list)


@dataclass(slots=True)
class _Messages:
    """The book messages or tickers of one instrument; `options`: of a chain, which option each is of."""

    frames: list[int] = field(default_factory=list)
    data: list[Data] = field(default_factory=list)
    options: list[OptionTerms] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """The frames of one call, sorted into what can be decoded together."""

    frames: Sequence[bytes]
    local_us: Array
    decoded: Decoded
    trades: dict[str, _Trades] = field(default_factory=dict)
    books: dict[str, _Messages] = field(default_factory=dict)
    contracts: dict[str, _Messages] = field(default_factory=dict)
    chains: dict[str, _Messages] = field(default_factory=dict)

    def sort(self, index: int, topic: Topic, data: list[Trade] | Data | None) -> None:
        if not topic.wanted:
            self.drop(topic.surplus, 1)
        elif topic.kind == TRADES and isinstance(data, list):
            trades = self.trades.get(topic.key)
            if trades is None:
                trades = self.trades[topic.key] = _Trades(topic)
            trades.frames.append(index)
            trades.lists.append(data)
        elif topic.kind == BOOK and isinstance(data, Data) and is_book(data):
            _gather(self.books, topic, index, data)
        elif topic.kind not in (TRADES, BOOK) and isinstance(data, Data) and data.timestamp > 0:
            _gather(self.contracts if topic.option is None else self.chains, topic, index, data)
        else:
            self.decoded.violations.append(violation(self.frames[index], f"incomplete data of a {topic.kind} channel"))

    def drop(self, stream: Stream, count: int) -> None:
        """Count frames or rows that go nowhere."""
        if count:
            filtered = self.decoded.filtered
            filtered[stream] = filtered.get(stream, 0) + count


class DeribitDecoder:
    """Frames of one connection to tick columns; see `protocol.Decoder`.

    Filtered are frames that nobody asked for, frames without trades, trades that liquidate nobody where only
    liquidations are wanted, tickers that change no value, and book messages between a break and the next snapshot. The
    numbers of trades are those of both streams that are made of them, trades and liquidations.
    """

    def __init__(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> None:
        self._topics = Topics(instruments, data_types)
        self._connection = connection
        self._books: dict[str, ChainedBook] = {}
        self._contracts: dict[str, ContractState] = {}

    def reset(self) -> None:
        """The connection ended: books and tickers start anew."""
        self._books.clear()
        self._contracts.clear()

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """Everything in `frames`, which arrived at `local_us` (int64 microseconds, one per frame, increasing)."""
        batch = _Batch(frames, local_us, Decoded())
        for index, frame in enumerate(read_frames(frames, batch.decoded.violations)):
            if frame is None:
                continue
            topic = self._topic_of(frame)
            if topic is None or frame.params is None:
                batch.decoded.control.append(index)
            else:
                batch.sort(index, topic, frame.params.data)
        for trades in batch.trades.values():
            self._add_trades(batch, trades)
        for key, messages in batch.books.items():
            self._add_book(batch, key, messages)
        for key, messages in batch.contracts.items():
            self._add_contract(batch, key, messages)
        for key, messages in batch.chains.items():
            self._add(batch, key, option_rows(messages.options, messages.data, local_us[messages.frames]))
        return batch.decoded

    def _topic_of(self, frame: Frame) -> Topic | None:
        if frame.method != SUBSCRIPTION or frame.params is None:
            return None
        return self._topics.find(frame.params.channel)

    def _add_trades(self, batch: _Batch, gathered: _Trades) -> None:
        topic = gathered.topic
        counts = [len(trades) for trades in gathered.lists]
        batch.drop(topic.surplus, counts.count(0))
        frames = np.repeat(np.array(gathered.frames, np.int64), counts)
        trades = list(chain.from_iterable(gathered.lists))
        numbers, arrived = trade_numbers(trades, batch.local_us[frames])
        if len(numbers):
            for data_type in sorted(topic.wanted):
                batch.decoded.numbers.append(Numbers(topic.key, data_type, numbers, arrived))
        whole = complete_trades(trades)
        if len(whole) < len(trades):
            for index in sorted(set(range(len(trades))).difference(whole)):
                batch.decoded.violations.append(violation(batch.frames[frames[index]], INCOMPLETE))
            trades, frames = [trades[index] for index in whole], frames[whole]
        if trades:
            self._add_whole_trades(batch, topic, trades, frames)

    def _add_whole_trades(self, batch: _Batch, topic: Topic, trades: Sequence[Trade], frames: Array) -> None:
        rows = trade_rows(trades, batch.local_us[frames])
        if DataType.TRADES in topic.wanted:
            self._add(batch, topic.key, rows)
        if DataType.LIQUIDATIONS not in topic.wanted:
            return
        liquidations, unknown = liquidation_rows(trades, rows)
        self._add(batch, topic.key, liquidations)
        for index in unknown:
            batch.decoded.violations.append(violation(batch.frames[frames[index]], UNKNOWN_LIQUIDATION))
        if DataType.TRADES not in topic.wanted:
            batch.drop((topic.key, DataType.LIQUIDATIONS), len(trades) - len(liquidations) - len(unknown))

    def _add_book(self, batch: _Batch, key: str, messages: _Messages) -> None:
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = ChainedBook()
        outcome = book.take(messages.data, batch.local_us[messages.frames])
        if outcome.rows:
            self._add(batch, key, concat(outcome.rows))
        batch.decoded.changes.extend((key, changes) for changes in outcome.changes)
        if outcome.broken:
            batch.decoded.resync[key] = outcome.broken
        batch.drop((key, DataType.BOOK), outcome.void)

    def _add_contract(self, batch: _Batch, key: str, messages: _Messages) -> None:
        contract = self._contracts.get(key)
        if contract is None:
            contract = self._contracts[key] = ContractState()
        rows = contract.rows(messages.data, batch.local_us[messages.frames])
        self._add(batch, key, rows)
        batch.drop((key, DataType.DERIVATIVE), len(messages.data) - len(rows))

    def _add(self, batch: _Batch, key: str, rows: TickBatch) -> None:
        if len(rows):
            batch.decoded.rows.append(Rows(key, rows, self._connection))


def _gather(groups: dict[str, _Messages], topic: Topic, index: int, data: Data) -> None:
    messages = groups.get(topic.key)
    if messages is None:
        messages = groups[topic.key] = _Messages()
    messages.frames.append(index)
    messages.data.append(data)
    if topic.option is not None:
        messages.options.append(topic.option)
