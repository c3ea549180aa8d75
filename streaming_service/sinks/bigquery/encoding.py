"""Arrow rows as requests of the Storage Write API. For threads: it takes milliseconds per megabyte."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streaming_service.sinks.turns import computing

_Field = descriptor_pb2.FieldDescriptorProto
_PROTOBUF: Final = {
    pa.float64(): _Field.TYPE_DOUBLE,
    pa.int64(): _Field.TYPE_INT64,
    pa.bool_(): _Field.TYPE_BOOL,
    pa.string(): _Field.TYPE_STRING,
    pa.timestamp("us", tz="UTC"): _Field.TYPE_INT64,
}
_MESSAGE: Final = "Row"


class AppendRequest(NamedTuple):
    """A serialized AppendRowsRequest, and the stream it is for."""

    stream: str
    data: bytes


def arrow_request(rows: pa.Table, *, stream: str, offset: int) -> AppendRequest:
    """A request with Arrow rows, their schema included.

    The message is put together by hand: the protobuf runtime would copy 18 MB three times, each time with the
    interpreter, and so the event loop, held up.
    """
    with computing:
        body = memoryview(_one_batch(rows).serialize())
    head = types.AppendRowsRequest.pb(_request(stream, offset)).SerializeToString()
    schema = types.ArrowSchema.pb()(serialized_schema=rows.schema.serialize().to_pybytes()).SerializeToString()
    batch_head = _head(_BATCH_FIELD, len(body))
    rows_head = _head(_ROWS_FIELD, len(batch_head) + len(body))
    schema_part = _head(_SCHEMA_FIELD, len(schema)) + schema
    data_head = _head(_ARROW_FIELD, len(schema_part) + len(rows_head) + len(batch_head) + len(body))
    return AppendRequest(stream, b"".join((head, data_head, schema_part, rows_head, batch_head, body)))


def protobuf_request(rows: pa.Table, *, stream: str, offset: int) -> AppendRequest:
    """A request with protocol-buffer rows, their descriptor included. Times are microseconds, as is asked for."""
    request = types.AppendRowsRequest.pb(_request(stream, offset))
    with computing:
        messages = _serialized(rows)
    request.proto_rows.writer_schema.proto_descriptor.CopyFrom(_descriptor(rows.schema))
    request.proto_rows.rows.serialized_rows.extend(messages)
    return AppendRequest(stream, request.SerializeToString())


def _request(stream: str, offset: int) -> types.AppendRowsRequest:
    request = types.AppendRowsRequest(write_stream=stream)
    types.AppendRowsRequest.pb(request).offset.value = offset
    return request


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    return rows.combine_chunks().to_batches()[0]


def _number(message: Any, field: str) -> int:
    return int(message.pb().DESCRIPTOR.fields_by_name[field].number)


_ARROW_FIELD: Final = _number(types.AppendRowsRequest, "arrow_rows")
_SCHEMA_FIELD: Final = _number(types.AppendRowsRequest.ArrowData, "writer_schema")
_ROWS_FIELD: Final = _number(types.AppendRowsRequest.ArrowData, "rows")
_BATCH_FIELD: Final = _number(types.ArrowRecordBatch, "serialized_record_batch")
_LENGTH_DELIMITED: Final = 2


def _head(field: int, length: int) -> bytes:
    """What stands before the bytes of a field."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


@lru_cache(maxsize=64)
def _descriptor(schema: pa.Schema) -> descriptor_pb2.DescriptorProto:
    made = descriptor_pb2.DescriptorProto(name=_MESSAGE)
    for number, field in enumerate(schema, 1):
        # proto2: a field that is not set is null.
        made.field.add(name=field.name, number=number, type=_PROTOBUF[field.type], label=_Field.LABEL_OPTIONAL)
    return made


@lru_cache(maxsize=64)
def _message(schema: pa.Schema) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="rows.proto", package="rows", syntax="proto2")
    file.message_type.add().CopyFrom(_descriptor(schema))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rows.{_MESSAGE}"))


def _serialized(rows: pa.Table) -> list[bytes]:
    """Each row as a message. There is no columnar way: one message per row is what the format is."""
    message = _message(rows.schema)
    columns = [_plain(column).to_pylist() for column in rows.columns]
    names = rows.schema.names
    return [
        message(
            **{name: value for name, value in zip(names, row, strict=True) if value is not None}
        ).SerializeToString()
        for row in zip(*columns, strict=True)
    ]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
