FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1
RUN python -m venv /opt/tick-handler
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY market_data_tick_handler ./market_data_tick_handler
COPY streaming_service ./streaming_service
COPY batch ./batch
RUN /opt/tick-handler/bin/pip install '.[streaming,batch,gcp,query]'
# Compiled here, so that a container starts at full speed. The generic target makes the cache valid on every processor
# of the architecture; one built for this host's processor would be thrown away on another. Numba also compares the
# sources' modification times, which image layers keep in whole seconds only.
ENV NUMBA_CACHE_DIR=/opt/kernels \
    NUMBA_CPU_NAME=generic
RUN find /opt/tick-handler/lib/python3.*/site-packages/market_data_tick_handler -name '*.py' \
        -exec touch --date=2024-01-01T00:00:00Z {} + \
    && /opt/tick-handler/bin/python -m compileall -q /opt/tick-handler/lib/python3.*/site-packages/market_data_tick_handler \
    && /opt/tick-handler/bin/python -m market_data_tick_handler.core.warmup

FROM python:3.12.11-slim-bookworm
LABEL org.opencontainers.image.title="market-data-tick-handler" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --home-dir /app --create-home ticks \
    && install --directory --owner=ticks /data
COPY --from=build /opt/tick-handler /opt/tick-handler
# Numba refuses a cache it cannot write.
COPY --from=build --chown=10001 /opt/kernels /opt/kernels
WORKDIR /app
COPY streaming.yaml ./
ENV PATH=/opt/tick-handler/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/opt/kernels \
    NUMBA_CPU_NAME=generic \
    MARKET_DATA_MONITORING__HOST=0.0.0.0 \
    MARKET_DATA_MONITORING__PORT=8080 \
    MARKET_DATA_PERSIST__PATH=/data \
    MARKET_DATA_PERSIST__BIGQUERY__SPOOL__PATH=/data/spool \
    MARKET_DATA_RECOVERY__PATH=/data/state \
    MARKET_DATA_RECORD__PATH=/data/frames
USER 10001
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/live', timeout=2)"]
ENTRYPOINT ["tick-handler"]
CMD ["stream"]
