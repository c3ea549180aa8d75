"""The write interface of BigQuery as a process that takes everything: `python -m benchmarks.append_server`.

It prints its port, and ends with its standard input. What it does for an append is to read it and to answer.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types

from benchmarks.measure import REPOSITORY

_SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryWrite/"
_UNLIMITED = [("grpc.max_receive_message_length", -1)]


@contextmanager
def append_server() -> Iterator[str]:
    """The address of one, while it runs."""
    command = [sys.executable, "-m", "benchmarks.append_server"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == f"{_SERVICE}AppendRows":
            return grpc.stream_stream_rpc_method_handler(_append)
        return grpc.unary_unary_rpc_method_handler(_create)


async def _append(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    answer = types.AppendRowsResponse.serialize(types.AppendRowsResponse(append_result={}))
    async for _ in requests:
        yield answer


async def _create(request: bytes, context: Any) -> bytes:
    parent = types.CreateWriteStreamRequest.deserialize(request).parent
    return bytes(types.WriteStream.serialize(types.WriteStream(name=f"{parent}/streams/1")))


async def _serve() -> None:
    server = grpc.aio.server(options=_UNLIMITED)
    server.add_generic_rpc_handlers([_Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve())
