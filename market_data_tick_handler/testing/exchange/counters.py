"""What a simulated exchange did, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """What the exchange did.

    connections: sockets that were opened; refused: handshakes answered with an error. frames: sent, by kind (the four
    of data, `control`, `garbage`, `burst`). withheld: frames not sent, by the fault that kept them. faults: applied, by
    class name. requests: REST calls by path. received: messages from clients. overflows: connections that took too
    little. ended: connections the exchange ended itself, by why.
    """

    connections: int = 0
    refused: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    received: int = 0
    overflows: int = 0
    ended: Counter[str] = field(default_factory=Counter)
