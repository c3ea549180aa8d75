"""How each venue writes an instrument: venue symbol <-> (type, base, quote, expiry, strike, option type)."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.core.venues import InstrumentType, SymbolStyle, Venue


@dataclass(frozen=True, slots=True)
class Parts:
    """What a symbol says. `expiry` is YYMMDD, `strike` decimal text, `option_type` CALL or PUT; empty = has none."""

    type: InstrumentType
    base: str
    quote: str
    expiry: str = ""
    strike: str = ""
    option_type: str = ""


Read = Callable[[Venue, str], Parts | None]
Write = Callable[[Parts], str]

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTH_CODES: Final = "FGHJKMNQUVXZ"
_SPOT, _PERP, _FUTURE, _OPTION = (
    InstrumentType.SPOT_PAIR, InstrumentType.PERPETUAL, InstrumentType.FUTURE, InstrumentType.OPTION,
)  # fmt: skip

_NAME: Final = r"[^\W_]+"
_DAY: Final = rf"(?P<day>\d{{1,2}})(?P<month>{'|'.join(_MONTHS)})(?P<year>\d\d)"
_DERIBIT: Final = re.compile(
    rf"(?P<base>{_NAME})(?:_(?P<quote>{_NAME}))?"
    rf"(?:-(?:(?P<perpetual>PERPETUAL)|{_DAY}(?:-(?P<strike>\d+(?:D\d+)?)-(?P<side>[CP]))?))?"
)
_BYBIT_DATED: Final = re.compile(rf"(?P<base>{_NAME}?)(?P<quote>USDT)?-{_DAY}")
_BYBIT_INVERSE: Final = re.compile(rf"(?P<base>{_NAME})USD(?P<code>[{_MONTH_CODES}])(?P<year>\d\d)")
_BYBIT_OPTION: Final = re.compile(
    rf"(?P<base>{_NAME})-{_DAY}-(?P<strike>\d+(?:\.\d+)?)-(?P<side>[CP])(?:-(?P<quote>USDT|USDC))?"
)
_OKX_OPTION: Final = re.compile(
    rf"(?P<base>{_NAME})-(?P<quote>USD)-(?P<expiry>\d{{6}})-(?P<strike>\d+(?:\.\d+)?)-(?P<side>[CP])"
)
_DATE_OPTION: Final = re.compile(rf"(?P<base>{_NAME})-(?P<expiry>\d{{6}})-(?P<strike>\d+(?:\.\d+)?)-(?P<side>[CP])")
_SIDES: Final = {"C": "CALL", "P": "PUT"}


def read_symbol(venue: Venue, text: str) -> Parts | None:
    """Parts of `text`, an upper-case venue symbol, or None where the venue does not write symbols like that."""
    return _STYLES[venue.style][0](venue, text)


def write_symbol(venue: Venue, parts: Parts) -> str:
    """The venue symbol of `parts`, upper case, as in the CSV files of Tardis."""
    return _STYLES[venue.style][1](parts)


def split_quote(text: str, quotes: tuple[str, ...]) -> tuple[str, str] | None:
    """(base, quote) of a symbol without separator: the longest quote that leaves a base."""
    for quote in sorted(quotes, key=len, reverse=True):
        if text.endswith(quote) and len(text) > len(quote):
            return text[: -len(quote)], quote
    return None


def _expiry(match: re.Match[str]) -> str:
    return f"{match['year']}{_MONTHS.index(match['month']) + 1:02}{int(match['day']):02}"


def _day(expiry: str) -> str:
    """YYMMDD as 9MAR24: no leading zero."""
    return f"{int(expiry[4:])}{_MONTHS[int(expiry[2:4]) - 1]}{expiry[:2]}"


def _read_concat(venue: Venue, text: str) -> Parts | None:
    pair = split_quote(text, venue.quotes) if text.isalnum() else None
    return Parts(venue.types[0], *pair) if pair else None


def _write_concat(parts: Parts) -> str:
    return parts.base + parts.quote


def _read_delivery(venue: Venue, text: str) -> Parts | None:
    stem, mark, tail = text.partition("_")
    pair = split_quote(stem, venue.quotes) if stem.isalnum() else None
    if pair is None:
        return None
    if mark:
        return Parts(_FUTURE, *pair, expiry=tail) if re.fullmatch(r"\d{6}", tail) else None
    return Parts(_PERP, *pair)


def _write_delivery(parts: Parts) -> str:
    return f"{parts.base}{parts.quote}_{parts.expiry}" if parts.expiry else parts.base + parts.quote


def _read_coin_margin(venue: Venue, text: str) -> Parts | None:
    if "_" not in text:
        return None
    return _read_delivery(venue, text.removesuffix("_PERP"))


def _write_coin_margin(parts: Parts) -> str:
    return f"{parts.base}{parts.quote}_{parts.expiry or 'PERP'}"


def _read_bybit(venue: Venue, text: str) -> Parts | None:
    if match := _BYBIT_DATED.fullmatch(text):
        base, quote = match["base"], match["quote"] or "USDC"
        return Parts(_FUTURE, base, quote, _expiry(match)) if base else None
    if match := _BYBIT_INVERSE.fullmatch(text):
        month = _MONTH_CODES.index(match["code"]) + 1
        return Parts(
            _FUTURE,
            match["base"],
            "USD",
            f"{match['year']}{month:02}{_last_friday(2000 + int(match['year']), month):02}",
        )
    if text.isalnum() and text.endswith("PERP") and text != "PERP":
        return Parts(_PERP, text.removesuffix("PERP"), "USDC")
    return _read_concat(venue, text)


def _write_bybit(parts: Parts) -> str:
    if not parts.expiry:
        return f"{parts.base}PERP" if parts.quote == "USDC" else parts.base + parts.quote
    if parts.quote == "USD":
        return f"{parts.base}USD{_MONTH_CODES[int(parts.expiry[2:4]) - 1]}{parts.expiry[:2]}"
    return f"{parts.base}{parts.quote if parts.quote == 'USDT' else ''}-{_day(parts.expiry)}"


def _last_friday(year: int, month: int) -> int:
    """Day of the month on which the quarterly contracts expire."""
    return max(week[calendar.FRIDAY] for week in calendar.monthcalendar(year, month))


def _read_pair(separator: str) -> Read:
    def read(venue: Venue, text: str) -> Parts | None:
        base, _, quote = text.partition(separator)
        return Parts(venue.types[0], base, quote) if base.isalnum() and quote.isalnum() else None

    return read


def _read_okx_swap(_: Venue, text: str) -> Parts | None:
    names = text.split("-")
    return Parts(_PERP, names[0], names[1]) if len(names) == 3 and names[2] == "SWAP" else None


def _read_okx_futures(_: Venue, text: str) -> Parts | None:
    names = text.split("-")
    dated = len(names) == 3 and re.fullmatch(r"\d{6}", names[2])
    return Parts(_FUTURE, names[0], names[1], names[2]) if dated else None


def _read_okx_option(_: Venue, text: str) -> Parts | None:
    match = _OKX_OPTION.fullmatch(text)
    return match and Parts(
        _OPTION, match["base"], match["quote"], match["expiry"], match["strike"], _SIDES[match["side"]]
    )


def _read_date_option(_: Venue, text: str) -> Parts | None:
    match = _DATE_OPTION.fullmatch(text)
    return match and Parts(_OPTION, match["base"], "USDT", match["expiry"], match["strike"], _SIDES[match["side"]])


def _read_bybit_option(_: Venue, text: str) -> Parts | None:
    match = _BYBIT_OPTION.fullmatch(text)
    if match is None:
        return None
    return Parts(
        _OPTION, match["base"], match["quote"] or "USDC", _expiry(match), match["strike"], _SIDES[match["side"]]
    )


def _write_bybit_option(parts: Parts) -> str:
    tail = "-USDT" if parts.quote == "USDT" else ""
    return f"{parts.base}-{_day(parts.expiry)}-{parts.strike}-{parts.option_type[0]}{tail}"


def _read_deribit(_: Venue, text: str) -> Parts | None:
    match = _DERIBIT.fullmatch(text)
    if match is None:
        return None
    base, quote = match["base"], match["quote"] or "USD"
    if match["perpetual"]:
        return Parts(_PERP, base, quote)
    if match["strike"]:
        return Parts(_OPTION, base, quote, _expiry(match), match["strike"].replace("D", "."), _SIDES[match["side"]])
    if match["day"]:
        return Parts(_FUTURE, base, quote, _expiry(match))
    return Parts(_SPOT, base, quote) if match["quote"] else None


def _write_deribit(parts: Parts) -> str:
    stem = parts.base if parts.quote == "USD" else f"{parts.base}_{parts.quote}"
    if parts.type is _PERP:
        return f"{stem}-PERPETUAL"
    if parts.type is _SPOT:
        return f"{parts.base}_{parts.quote}"
    if parts.type is _FUTURE:
        return f"{stem}-{_day(parts.expiry)}"
    return f"{stem}-{_day(parts.expiry)}-{parts.strike.replace('.', 'D')}-{parts.option_type[0]}"


_STYLES: Final[dict[SymbolStyle, tuple[Read, Write]]] = {
    SymbolStyle.CONCAT: (_read_concat, _write_concat),
    SymbolStyle.DELIVERY: (_read_delivery, _write_delivery),
    SymbolStyle.COIN_MARGIN: (_read_coin_margin, _write_coin_margin),
    SymbolStyle.BYBIT: (_read_bybit, _write_bybit),
    SymbolStyle.DASH: (_read_pair("-"), lambda parts: f"{parts.base}-{parts.quote}"),
    SymbolStyle.UNDERSCORE: (_read_pair("_"), lambda parts: f"{parts.base}_{parts.quote}"),
    SymbolStyle.OKX_SWAP: (_read_okx_swap, lambda parts: f"{parts.base}-{parts.quote}-SWAP"),
    SymbolStyle.OKX_FUTURES: (_read_okx_futures, lambda parts: f"{parts.base}-{parts.quote}-{parts.expiry}"),
    SymbolStyle.OKX_OPTIONS: (
        _read_okx_option,
        lambda parts: f"{parts.base}-{parts.quote}-{parts.expiry}-{parts.strike}-{parts.option_type[0]}",
    ),
    SymbolStyle.DATE_OPTIONS: (
        _read_date_option,
        lambda parts: f"{parts.base}-{parts.expiry}-{parts.strike}-{parts.option_type[0]}",
    ),
    SymbolStyle.BYBIT_OPTIONS: (_read_bybit_option, _write_bybit_option),
    SymbolStyle.DERIBIT: (_read_deribit, _write_deribit),
}
