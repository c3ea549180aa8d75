"""A gRPC proxy before the Storage Write API that loses, delays, refuses and counts."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryWrite"
APPEND = f"{SERVICE}/AppendRows"
FINALIZE = f"{SERVICE}/FinalizeWriteStream"

_Code = types.StorageError.StorageErrorCode

# What to do with an append. after_*: the rows are written.
DROP_BEFORE = "drop_before"
DROP_AFTER = "drop_after"
EXHAUSTED = "exhausted"
HANG_BEFORE = "hang_before"
HANG_AFTER = "hang_after"
SLOW = "slow"
HELD = "held"
FINALIZE_BEFORE = "finalize_before"
FINALIZE_AFTER = "finalize_after"
REFUSE_EVEN = "refuse_even"
REFUSE_WHOLE = "refuse_whole"
UNAVAILABLE_ANSWER = "unavailable_answer"
NO_ARROW = "no_arrow"
TABLE_LACKS_COLUMNS = "table_lacks_columns"
FORGET_STREAM = "forget_stream"
WRITE_THEN_FORGET = "write_then_forget"


_SLOW_S = 0.3


class FaultProxy:
    """Forwards to `target`. `faults`: one for each append to come; an empty queue forwards. `down`: nothing answers.
    `let_go`: when set, what is `HELD` goes on.

    One request at a time is forwarded, and to its end, also if nobody waits for the answer any more: BigQuery does not
    mix up two that come together, as one that was repeated too soon and the one before it; an emulator may.
    """

    def __init__(self, target: str) -> None:
        self.faults: deque[str] = deque()
        self.down = False
        self.retry_after_s = 0.0
        self.forgotten: set[str] = set()
        self.appends: Counter[str] = Counter()
        self.append_bytes: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()
        self.address = ""
        self._target = target
        self.let_go = asyncio.Event()
        self._one_at_a_time: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._forwarding = asyncio.Lock()
        self._forwarded: set[asyncio.Task[bytes]] = set()

    async def __aenter__(self) -> FaultProxy:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self._target, options=options)
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers([_Handlers(self)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        await asyncio.gather(*self._forwarded, return_exceptions=True)
        await self._channel.close()

    async def unary(self, method: str, request: bytes, context: Any) -> bytes:
        self.methods[method] += 1
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the proxy is down")
        if method == FINALIZE and types.FinalizeWriteStreamRequest.deserialize(request).name in self.forgotten:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such stream")
        return await self._forward(method, request, context)

    async def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        try:
            return await self._to_the_end(self._call(method, request))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
            raise

    async def _call(self, method: str, request: bytes) -> bytes:
        async with self._forwarding:
            answer: bytes = await self._channel.unary_unary(method)(request)
            return answer

    async def _to_the_end(self, forwarding: Coroutine[None, None, bytes]) -> bytes:
        task = asyncio.create_task(forwarding)
        self._forwarded.add(task)
        task.add_done_callback(self._forwarded.discard)
        return await asyncio.shield(task)

    async def append(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            if self.down:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the proxy is down")
            read = types.AppendRowsRequest.deserialize(request)
            table = read.write_stream.split("/")[5]
            self.appends[table] += 1
            self.append_bytes[table] += len(request)
            fault = self.faults.popleft() if self.faults else ""
            # BigQuery takes one append of a stream at a time, whatever connections they come by.
            async with self._one_at_a_time[read.write_stream]:
                yield await self._answer(fault, request, read, context)

    async def _answer(self, fault: str, request: bytes, read: types.AppendRowsRequest, context: Any) -> bytes:
        if fault == DROP_BEFORE:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        if fault == EXHAUSTED:
            await self._exhaust(context)
        if fault == HANG_BEFORE:
            await asyncio.Event().wait()
        if fault == HELD:
            await self.let_go.wait()
        if fault == SLOW:
            await asyncio.sleep(_SLOW_S)
        if fault == FINALIZE_BEFORE:
            await self._finalize(read.write_stream)
        if fault == REFUSE_EVEN:
            rows = _row_count(read)
            if rows > 1:
                return _refusal(read, range(0, rows, 2))
        if fault == REFUSE_WHOLE:
            return _error(read, code_pb2.INVALID_ARGUMENT, "some row does not fit")
        if fault == NO_ARROW and "arrow_rows" in read:
            return _error(read, code_pb2.UNIMPLEMENTED, "Arrow format is not supported for this table")
        if fault == TABLE_LACKS_COLUMNS:
            return _error(
                read,
                code_pb2.INVALID_ARGUMENT,
                "extra fields",
                _Code.SCHEMA_MISMATCH_EXTRA_FIELDS,
            )
        if fault == WRITE_THEN_FORGET:
            await self._written(request, context)
        if fault in (FORGET_STREAM, WRITE_THEN_FORGET):
            # As after its expiry: neither appends nor questions find it.
            self.forgotten.add(read.write_stream)
        if read.write_stream in self.forgotten:
            return _error(read, code_pb2.NOT_FOUND, "no such stream", _Code.STREAM_NOT_FOUND)
        if fault == UNAVAILABLE_ANSWER:
            return _error(read, code_pb2.UNAVAILABLE, "try again")
        answer = await self._written(request, context)
        if fault == FINALIZE_AFTER:
            await self._finalize(read.write_stream)
        if fault in (DROP_AFTER, FINALIZE_AFTER):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset after the rows were written")
        if fault == HANG_AFTER:
            await asyncio.Event().wait()
        return answer

    async def _written(self, request: bytes, context: Any) -> bytes:
        try:
            return await self._to_the_end(self._append(request))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
            raise
        except _Ended as ended:
            await context.abort(ended.code, ended.details)
            raise

    async def _append(self, request: bytes) -> bytes:
        async with self._forwarding:
            call = self._channel.stream_stream(APPEND)()
            await call.write(request)
            await call.done_writing()
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise _Ended(await call.code(), await call.details())
            return bytes(answer)

    async def _exhaust(self, context: Any) -> None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(self.retry_after_s * 1000))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="quota", details=[detail])
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", metadata)

    async def _finalize(self, stream: str) -> None:
        request = types.FinalizeWriteStreamRequest.serialize(types.FinalizeWriteStreamRequest(name=stream))
        await self._to_the_end(self._call(FINALIZE, request))


class _Ended(Exception):
    """A call that ended without an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        if method == APPEND:
            return grpc.stream_stream_rpc_method_handler(self._proxy.append)

        async def forward(request: bytes, context: Any) -> bytes:
            return await self._proxy.unary(method, request, context)

        return grpc.unary_unary_rpc_method_handler(forward)


def _row_count(read: types.AppendRowsRequest) -> int:
    import pyarrow as pa

    if "proto_rows" in read:
        return len(read.proto_rows.rows.serialized_rows)
    schema = pa.ipc.read_schema(pa.py_buffer(read.arrow_rows.writer_schema.serialized_schema))
    return int(pa.ipc.read_record_batch(pa.py_buffer(read.arrow_rows.rows.serialized_record_batch), schema).num_rows)


def _error(read: types.AppendRowsRequest, code: int, message: str, storage_code: int = 0) -> bytes:
    answer = types.AppendRowsResponse(write_stream=read.write_stream)
    status = status_pb2.Status(code=code, message=message)
    if storage_code:
        status.details.add().Pack(types.StorageError.pb(types.StorageError(code=storage_code)))
    answer.error = status
    return bytes(types.AppendRowsResponse.serialize(answer))


def _refusal(read: types.AppendRowsRequest, indices: range) -> bytes:
    answer = types.AppendRowsResponse(write_stream=read.write_stream)
    answer.error = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="rows are invalid")
    answer.row_errors = [
        types.RowError(index=index, code=types.RowError.RowErrorCode.FIELDS_ERROR, message=f"even row {index}")
        for index in indices
    ]
    return bytes(types.AppendRowsResponse.serialize(answer))
