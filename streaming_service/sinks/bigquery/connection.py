"""The official clients, opened from the settings: credentials and TLS, or an emulator without them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteAsyncClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcAsyncIOTransport

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.errors import SinkBusy
from market_data_tick_handler.storage.bigquery_login import log_in, rest_client
from streaming_service.sinks.bigquery.encoding import AppendRequest
from streaming_service.sinks.bigquery.faults import judge_call, judge_status
from streaming_service.sinks.tables.answers import StreamGone, TableGone

_APPEND: Final = "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows"


@dataclass(frozen=True, slots=True)
class Clients:
    """Both clients of one project."""

    project: str
    rest: bigquery.Client
    appends: AppendClient

    async def aclose(self) -> None:
        """Close the connections."""
        await self.appends.aclose()
        await asyncio.to_thread(self.rest.close)


class AppendClient:
    """The Storage Write API: one call at a time per stream, one answer, no retries of its own.

    timeout_s: longest wait for one answer. Every method raises the errors of `faults`.
    """

    def __init__(self, client: BigQueryWriteAsyncClient, channel: grpc.aio.Channel | None, *, timeout_s: float) -> None:
        self._client = client
        self._channel = channel
        self._timeout_s = timeout_s
        # The client's own method would serialize each request on the event loop, which takes 20 ms and more.
        transport: Any = client.transport
        self._append = transport.grpc_channel.stream_stream(
            _APPEND, request_serializer=None, response_deserializer=types.AppendRowsResponse.deserialize
        )

    async def create(self, table_path: str, *, pending: bool = False) -> str:
        """A new stream of a table; its name.

        Raises:
            TableGone: there is no such table. SinkBusy, SinkError: as `faults` says.
        """
        kind = types.WriteStream.Type.PENDING if pending else types.WriteStream.Type.COMMITTED
        try:
            made = await self._client.create_write_stream(
                parent=table_path,
                write_stream=types.WriteStream(type_=kind),
                retry=None,
                timeout=self._timeout_s,
            )
        except api.GoogleAPICallError as error:
            judged = judge_call(error)
            raise TableGone(str(judged)) if isinstance(judged, StreamGone) else judged from error
        return str(made.name)

    async def append(self, request: AppendRequest) -> None:
        """Send rows and wait until they are written.

        Raises:
            AlreadyWritten, StreamGone, TableGone, RowsRefused, BatchRefused, ArrowRefused, SinkBusy, SinkError.
        """
        metadata = (("x-goog-request-params", f"write_stream={request.stream}"),)
        call = self._append(timeout=self._timeout_s, metadata=metadata)
        try:
            await call.write(request.data)
            await call.done_writing()
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise SinkBusy(f"BigQuery: an append ended without an answer: {await call.details()}")
        except grpc.aio.AioRpcError as error:
            told: Any = api
            raise judge_call(told.from_grpc_error(error)) from error
        finally:
            call.cancel()
        if answer.error.code:
            raise judge_status(answer.error, answer.row_errors)

    async def finalize(self, stream: str) -> int:
        """End a stream; the rows it has.

        Raises:
            StreamGone: it is not known any more. SinkBusy, SinkError: as `faults` says.
        """
        try:
            ended = await self._client.finalize_write_stream(name=stream, retry=None, timeout=self._timeout_s)
        except api.GoogleAPICallError as error:
            raise judge_call(error) from error
        return int(ended.row_count)

    async def is_committed(self, stream: str) -> bool:
        """Whether the rows of a pending stream are in the table.

        Raises:
            StreamGone: it is not known any more. SinkBusy, SinkError: as `faults` says.
        """
        try:
            found = await self._client.get_write_stream(name=stream, retry=None, timeout=self._timeout_s)
        except api.GoogleAPICallError as error:
            raise judge_call(error) from error
        return bool(types.WriteStream.pb(found).HasField("commit_time"))

    async def commit(self, table_path: str, stream: str) -> None:
        """Put the rows of a finalized pending stream into the table, all at once.

        Raises:
            StreamGone: it cannot be committed, or was before. SinkBusy, SinkError: as `faults` says.
        """
        request = types.BatchCommitWriteStreamsRequest(parent=table_path, write_streams=[stream])
        try:
            done = await self._client.batch_commit_write_streams(request=request, retry=None, timeout=self._timeout_s)
        except api.GoogleAPICallError as error:
            raise judge_call(error) from error
        if done.stream_errors:
            raise StreamGone(f"BigQuery: {stream} not committed: {done.stream_errors[0].error_message}")

    async def aclose(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()
        else:
            transport: Any = self._client.transport
            await transport.close()


async def open_clients(settings: BigQuerySettings) -> Clients:
    """Clients as the settings say.

    Raises:
        ConfigError: there are no credentials, or no project.
    """
    login = await asyncio.to_thread(log_in, settings)
    project, rest = login.project, rest_client(settings, login)
    timeout_s = settings.request_timeout.s
    if login.emulated:
        channel = grpc.aio.insecure_channel(settings.grpc_endpoint)
        client = BigQueryWriteAsyncClient(transport=BigQueryWriteGrpcAsyncIOTransport(channel=channel))
        return Clients(project, rest, AppendClient(client, channel, timeout_s=timeout_s))
    options = ClientOptions(api_endpoint=settings.grpc_endpoint) if settings.grpc_endpoint else None
    client = BigQueryWriteAsyncClient(credentials=login.credentials, client_options=options)
    return Clients(project, rest, AppendClient(client, None, timeout_s=timeout_s))
