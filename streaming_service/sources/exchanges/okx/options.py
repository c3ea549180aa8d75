"""Rows of an OKX option chain: one for each option that the summary of its family names.

`opt-summary` brings greeks and volatilities of a whole family; quotes, open interest and mark price come option by
option over `tickers`, `open-interest` and `mark-price`, the price of the underlying over `index-tickers`. A row is
written when the summary names an option and holds what is known of it then, as the vendor writes it: 0 counts as
absent, an absent open interest or mark price leaves the last one standing, and a new quote replaces the old one whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import nan
from operator import itemgetter
from typing import Final

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    chain_of,
    instrument_from_venue_symbol,
)
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from market_data_tick_handler.core.venues import find_venue
from market_data_tick_handler.errors import InstrumentError, ProtocolViolation
from streaming_service.sources.exchanges.okx.frames import Read, T, violation
from streaming_service.sources.exchanges.okx.messages import Number, Summary, Ticker, number
from streaming_service.sources.exchanges.okx.trades import MILLISECOND_US

SUMMARY_CHANNEL: Final = "opt-summary"
# Of one option.
MEMBER_CHANNELS: Final = ("mark-price", "open-interest", "tickers")
# Some three times of what is listed at once; every day brings new ones.
_MANY: Final = 5_000
_SIGNS: Final = {"CALL": 1, "PUT": -1}
_COLUMNS: Final = (
    "timestamp", "local_timestamp", "symbol", "symbol_hash", "option_type", "strike_price", "expiration",
    "bid_iv", "ask_iv", "mark_iv", "delta", "gamma", "vega", "theta", "underlying_price",
    "last_price", "bid_price", "bid_amount", "ask_price", "ask_amount", "open_interest", "mark_price",
)  # fmt: skip
_Row = tuple[str | float, ...]


@dataclass(slots=True)
class _Option:
    """One option: its chain, the part of its rows that never changes, and what is known of it.

    fixed: symbol, hash, type, strike, expiry. quote: last price, bid, its amount, ask, its amount.
    """

    chain: str
    fixed: tuple[str, int, int, float, int]
    quote: tuple[float, float, float, float, float] = (nan, nan, nan, nan, nan)
    open_interest: float = nan
    mark_price: float = nan

    def remember(self, message: Ticker) -> None:
        """Take in a mark price, an open interest or a quote."""
        if message.markPx != "":
            self.mark_price = _given(message.markPx, self.mark_price)
        elif message.oi != "":
            self.open_interest = _given(message.oi, self.open_interest)
        else:
            self.quote = (
                _given(message.last), _given(message.bidPx), _given(message.bidSz), _given(message.askPx),
                _given(message.askSz),
            )  # fmt: skip


@dataclass(slots=True)
class ChainRows:
    """What became of the messages of a batch. silent: by chain, how many gave no row: state for later rows, and
    options that nobody asked for."""

    rows: list[Rows] = field(default_factory=list)
    silent: Counter[str] = field(default_factory=Counter)
    violations: list[ProtocolViolation] = field(default_factory=list)


class OptionChains:
    """The options of one connection: all those of the chains it carries, and single ones of other chains."""

    __slots__ = ("_chains", "_exchange", "_index", "_options", "_singles", "_venue")

    def __init__(self, exchange: str, instruments: Iterable[InstrumentDefinition]) -> None:
        self._exchange = exchange
        self._venue = find_venue(exchange).name
        chains = InstrumentType.OPTION_CHAIN
        asked = list(instruments)
        self._chains = {each.key for each in asked if each.instrument_type is chains}
        self._singles = {each.venue_symbol for each in asked if each.instrument_type is not chains}
        self._options: dict[str, _Option] = {}
        self._index: dict[str, float] = {}

    def follow(self, states: Read[Ticker], summaries: Read[Summary], local_us: Array, connection: int) -> ChainRows:
        """Walk through the messages in the order of their frames; `local_us` is that of all frames of the batch."""
        out = ChainRows()
        found: defaultdict[str, list[_Row]] = defaultdict(list)
        times = local_us.tolist()
        if len(self._options) > _MANY:
            self._forget_expired(times[0])
        messages: list[tuple[int, Ticker | Summary]] = [*_messages(states), *_messages(summaries)]
        for at, message in sorted(messages, key=itemgetter(0)):
            if isinstance(message, Ticker) and message.idxPx != "":
                self._index[message.instId] = _given(message.idxPx, self._index.get(message.instId, nan))
                out.silent[f"{self._venue}:{InstrumentType.OPTION_CHAIN}:{message.instId}"] += 1
            elif (option := self._option(message.instId)) is None:
                out.violations.append(violation(message.instId.encode(), "not the name of an option"))
            elif isinstance(message, Ticker):
                option.remember(message)
                out.silent[option.chain] += 1
            elif option.chain in self._chains or message.instId in self._singles:
                found[option.chain].append(self._row(option, message, times[at]))
            else:
                out.silent[option.chain] += 1
        out.rows = [Rows(key, _batch(rows), connection) for key, rows in found.items()]
        return out

    def _row(self, option: _Option, summary: Summary, local_us: int) -> _Row:
        family = summary.uly or "-".join(summary.instId.split("-")[:2])
        return (
            summary.ts * MILLISECOND_US, local_us, *option.fixed,
            _given(summary.bidVol), _given(summary.askVol), _given(summary.markVol),
            _given(summary.delta), _given(summary.gamma), _given(summary.vega), _given(summary.theta),
            self._index.get(family, nan), *option.quote, option.open_interest, option.mark_price,
        )  # fmt: skip

    def _option(self, symbol: str) -> _Option | None:
        option = self._options.get(symbol)
        if option is None:
            try:
                one = instrument_from_venue_symbol(self._exchange, symbol)
            except InstrumentError:
                return None
            fixed = (symbol, hash_text(symbol), _SIGNS[one.option_type], one.strike, one.expiry_us)
            option = self._options[symbol] = _Option(chain_of(one).key, fixed)
        return option

    def _forget_expired(self, now_us: int) -> None:
        self._options = {symbol: option for symbol, option in self._options.items() if option.fixed[-1] > now_us}


def _messages(read: Read[T]) -> list[tuple[int, T]]:
    """Each message with the index of its frame."""
    return [(at, message) for at, frame in zip(read.at, read.frames, strict=True) for message in frame.data]


def _given(value: Number, otherwise: float = nan) -> float:
    """A number; `otherwise` where it is absent or 0, which is how the venue writes that there is none."""
    found = number(value)
    return found if found == found and found != 0 else otherwise


def _batch(rows: Sequence[_Row]) -> TickBatch:
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    return TickBatch.build(DataType.OPTIONS, columns)
