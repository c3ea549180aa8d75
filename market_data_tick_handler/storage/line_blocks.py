"""A text file, gzipped or not, as blocks of whole lines; what comes before an error is handed out first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from market_data_tick_handler.errors import CorruptObject, NotFound, NotInstalled
from market_data_tick_handler.storage.read_ahead import ahead

_GZIP_MAGIC: Final = b"\x1f\x8b"
_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_READ_BYTES: Final = 256 * 1024


def line_blocks(path: Path, *, block_bytes: int, read_ahead: bool) -> Iterator[bytes]:
    """Blocks of about `block_bytes` that end at a line end (the last one may lack it).

    read_ahead: decompress the next block in a thread while the caller works on this one.

    Raises:
        NotFound: no such file.
        CorruptObject: the gzip stream breaks off or is damaged; every line before that was handed out.
    """
    blocks = _cut(_chunks(path), block_bytes, path)
    return ahead(blocks) if read_ahead else blocks


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; check the path") from None
    with file:
        head = file.read(_READ_BYTES)
        if head.startswith(_GZIP_MAGIC):
            yield from _gunzip(iter(lambda: file.read(_READ_BYTES), b""), head, path)
            return
        if path.suffix == ".gz" and head:
            raise CorruptObject(
                f"{path}: expected a gzip stream, got first bytes {head[:4].hex()}; download the file again"
            )
        while head:
            yield head
            head = file.read(_READ_BYTES)


def _gunzip(chunks: Iterator[bytes], head: bytes, path: Path) -> Iterator[bytes]:
    """Decompressed chunks of all members of a gzip file; zero padding after a member is allowed."""
    try:
        from isal import isal_zlib
        from isal.igzip_lib import IsalError
    except ImportError:
        raise NotInstalled(
            "reading .gz files needs the package isal: install the extra [batch] or [streaming]"
        ) from None
    member, given = isal_zlib.decompressobj(wbits=31), len(head)
    data = head
    try:
        while data:
            yield member.decompress(data)
            rest = member.unused_data.lstrip(b"\0") if member.eof else b""
            if member.eof and not rest:
                rest = next(chunks, b"").lstrip(b"\0")
                given += len(rest)
                if not rest:
                    return
            if member.eof:
                member, data = isal_zlib.decompressobj(wbits=31), rest
            else:
                data = next(chunks, b"")
                given += len(data)
    except IsalError as error:  # type: ignore[misc]  # the stub calls the class an instance
        raise CorruptObject(
            f"{path}: damaged gzip stream near compressed byte {given:,} ({error}); "
            "rows before it were used; download the file again"
        ) from error
    raise CorruptObject(
        f"{path}: the gzip stream ends early, after {given:,} compressed bytes; "
        "rows before it were used; download the file again"
    )


def _cut(chunks: Iterator[bytes], block_bytes: int, path: Path) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    broken: CorruptObject | None = None
    try:
        for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size < block_bytes:
                continue
            data = b"".join(parts)
            end = data.rfind(b"\n") + 1
            if end:
                yield data[:end]
            parts = [data[end:]]
            size = len(data) - end
            if size > _MAX_LINE_BYTES:
                raise CorruptObject(
                    f"{path}: expected lines of text, got {size:,} bytes without a line end; is it a CSV file?"
                )
    except CorruptObject as error:
        broken = error
    data = b"".join(parts)
    if broken is not None:
        # The last line is not known to be whole: a number cut short would look like a good one.
        data = data[: data.rfind(b"\n") + 1]
    if data:
        yield data
    if broken is not None:
        raise broken
