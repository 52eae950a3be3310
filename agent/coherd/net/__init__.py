"""What crosses the network (floor 2): the bridge to grpc.aio's thread, and what peers are asked over it."""

from __future__ import annotations

import os

CORE_SETTINGS = {
    # gRPC's older way to wait for sockets saves a hop between threads on each message: measured, a tenth
    # of the time to the last of three agents. A release that lacks it ignores the names.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
    # What its core would write to standard error comes as errors, too.
    "GRPC_VERBOSITY": "NONE",
}
"""What gRPC's core reads from the environment when it is imported: hence here, before anybody does."""

for _name, _value in CORE_SETTINGS.items():
    os.environ.setdefault(_name, _value)
