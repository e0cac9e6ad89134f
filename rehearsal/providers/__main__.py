"""`python -m rehearsal.providers`: the pretend aws and kubernetes providers in one process, in front of one cloud.

Prints one JSON line, {"aws": PORT, "kubernetes": PORT}, once both answer, and then nothing. Ends when the watched
process does.
"""

import importlib
import importlib.metadata
import json
import sys
from concurrent import futures
from pathlib import Path
from typing import Annotated, Any, Literal

import grpc
import typer
from pulumi.runtime.proto.provider_pb2_grpc import add_ResourceProviderServicer_to_server

from rehearsal.clock import Clock, DiscreteClock, ManualClock
from rehearsal.cloud.faults import TOLD, Faults
from rehearsal.cloud.values import CloudError
from rehearsal.host import MESSAGE_LIMIT_BYTES
from rehearsal.providers.service import Provider
from rehearsal.watch import end_with, quiet_signals

PACKAGES = ("aws", "kubernetes")
# Each create holds a thread while it waits for virtual minutes to pass, so there must be more than the engine runs at once.
_THREADS = 256


def main(
    store: Annotated[Path, typer.Option(help="Folder of the pretend cloud: cloud.json and journal.jsonl")],
    watch: Annotated[
        int, typer.Option(help="Process id of the session: its descendants are who works, its end is ours")
    ],
    faults: Annotated[Path | None, typer.Option(help="JSON file of what is to go wrong")] = None,
    clock: Annotated[Literal["events", "off"], typer.Option(help="off: nothing waits, time is not counted")] = "events",
    cloud: Annotated[
        str, typer.Option(help="module:class of the cloud; the tests bring a plainer one")
    ] = "rehearsal.cloud:Cloud",
) -> None:
    quiet_signals(also_interrupt=False)
    end_with(watch)
    store.mkdir(parents=True, exist_ok=True)
    time: Clock = DiscreteClock(watch_pid=watch) if clock == "events" else ManualClock()
    module, _, name = cloud.partition(":")
    make: Any = getattr(importlib.import_module(module), name)
    try:
        pretend = make(store, time, Faults.load(faults) if faults else None, told=store / TOLD)
    except (ValueError, CloudError) as error:
        sys.exit(str(error))
    ports, servers = {}, []
    for package in PACKAGES:
        server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=_THREADS),
            options=[
                ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
                ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
            ],
        )
        version = importlib.metadata.version(f"pulumi-{package}")
        servicer = Provider(package, version, pretend, store / "providers.log")
        add_ResourceProviderServicer_to_server(servicer, server)
        ports[package] = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    for server in servers:
        server.wait_for_termination()


if __name__ == "__main__":
    typer.run(main)
