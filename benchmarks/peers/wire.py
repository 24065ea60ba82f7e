"""The lines between benchmarks/efficiency/peers.py and a peer; needs the standard library only.

Each request is a line of JSON on stdin and gets one line of JSON on the file descriptor that the
first argument names, since libraries print to stdout. Values are better the larger they are. The
first request has the settings: strategy, seed, workers, space (by name: type, low, high, log,
or type categorical and choices), default (the configuration to try first), max_epochs, first_rung
and reduction_factor. Then:

    {"ask": true}                               a worker is free
        {"trial": 3, "params": {...}}           start the next new trial, numbered from 0
        {"trial": 1}                            resume a paused trial
        {"trial": null}                         wait for the next report
    {"trial": 3, "epoch": 4, "value": 0.5}      a report, after every epoch
        {"goes_on": true}                       train the next epoch; false frees the worker
    {"recommend": true}
        {"trial": 1}                            what the peer delivers; null: it has no such rule
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

Settings = dict[str, Any]
Params = dict[str, Any]


class Peer(Protocol):
    """A strategy behind the wire; its methods answer the requests of the same names."""

    def ask(self) -> dict[str, Any]: ...

    def report(self, trial: int, epoch: int, value: float) -> bool: ...

    def recommend(self) -> int | None: ...


def serve(make: Callable[[Settings], Peer]) -> None:
    """Answers the requests on stdin until its end."""
    answers = os.fdopen(int(sys.argv[1]), "w")
    peer: Peer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if peer is None:
            peer = make(request)
            answer = {"ready": True}
        else:
            answer = _answer(peer, request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    if "ask" in request:
        return peer.ask()
    if "recommend" in request:
        return {"trial": peer.recommend()}
    return {"goes_on": peer.report(request["trial"], request["epoch"], request["value"])}
