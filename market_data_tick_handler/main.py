"""The command line, `tick-handler`: parses, runs the command, and turns errors into text and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from market_data_tick_handler.cli import history, live, people, settings
from market_data_tick_handler.cli.root import app
from market_data_tick_handler.commands.arguments import normalise
from market_data_tick_handler.commands.console import expected_only, report_error
from market_data_tick_handler.errors import MarketDataError

# Importing a module of commands is what puts them on the command line.
COMMANDS = (people, live, history, settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code; `argv` defaults to the process's own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in arguments
    # Read when pyarrow is first imported. Its own pool keeps most of what rewriting day files took; the system's gives
    # it back, which is what a service that runs for months needs.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        app(args=normalise(arguments), prog_name="tick-handler")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except (MarketDataError, OSError) as error:
        return report_error(error, verbose=verbose)
    except BaseExceptionGroup as errors:
        if not expected_only(errors):
            raise
        return report_error(errors, verbose=verbose)
    return 0
