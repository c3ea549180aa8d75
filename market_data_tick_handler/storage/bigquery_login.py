"""The way into BigQuery, from the settings: credentials and TLS, or an emulator without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import google.auth
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.errors import ConfigError

_SCOPES: Final = ("https://www.googleapis.com/auth/bigquery",)
_EMULATED_PROJECT: Final = "local"


@dataclass(frozen=True, slots=True)
class Login:
    """Who asks, and on whose account. emulated: plain HTTP and gRPC, no credentials."""

    project: str
    credentials: Any
    emulated: bool


def log_in(settings: BigQuerySettings, *, project: str = "", credentials: Any = None) -> Login:
    """Credentials as given, else as Google's libraries find them; the project as given, as set, or as they name it. For
    threads: it may ask a server.

    Raises:
        ConfigError: there are no credentials, or no project.
    """
    emulated = settings.api_endpoint.startswith("http://")
    found = ""
    if credentials is None:
        credentials, found = (_nobody(), _EMULATED_PROJECT) if emulated else _default_credentials()
    project = project or settings.project or found
    if not project:
        raise ConfigError(
            "the credentials name no project", key="persist.bigquery.project", hint="set it, or log in with one"
        )
    return Login(project, credentials, emulated)


def rest_client(settings: BigQuerySettings, login: Login) -> bigquery.Client:
    """The official client of the REST interface."""
    options = {"api_endpoint": settings.api_endpoint} if settings.api_endpoint else None
    return bigquery.Client(project=login.project, credentials=login.credentials, client_options=options)


def _nobody() -> Any:
    # The class has no types of its own.
    make: Any = AnonymousCredentials
    return make()


def _default_credentials() -> tuple[Any, str]:
    try:
        credentials, project = google.auth.default(scopes=list(_SCOPES))
    except GoogleAuthError as error:
        raise ConfigError(
            f"no Google Cloud credentials: {error}",
            key="persist.bigquery",
            hint="set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
        ) from error
    return credentials, project or ""
