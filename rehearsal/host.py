"""A Python language host: runs the program for an engine that was installed without one.

The official Pulumi CLI brings its own `pulumi-language-python`; an engine built from its Go module brings none
(rehearsal.engine). The session puts a shim of that name on PATH only in the second case. The engine starts it, reads
the port from its first line and calls it over gRPC. The SDK's own server for inline programs does the work; what it
lacks to be a host of its own is added here.
"""

import os
import runpy
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from pulumi import RunError
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import LanguageRuntimeServicer, language_pb2, plugin_pb2
from pulumi.runtime.proto.language_pb2_grpc import add_LanguageRuntimeServicer_to_server

from rehearsal.watch import SESSION, end_with, quiet_signals

MESSAGE_LIMIT_BYTES = 400 * 1024 * 1024  # as Pulumi's own hosts and providers
_LIMITS = [("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES), ("grpc.max_send_message_length", -1)]


class Host(LanguageServer):
    """The SDK's in-process runner, pointed at the project's `__main__.py` instead of a function."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version="1.0.0")

    def InstallDependencies(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return iter(())  # `make setup` made the environment this very process runs in

    def RuntimeOptionsPrompts(self, request: Any, context: grpc.ServicerContext) -> Any:
        return language_pb2.RuntimeOptionsResponse()

    def GetProgramDependencies(self, request: Any, context: grpc.ServicerContext) -> Any:
        return language_pb2.GetProgramDependenciesResponse()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return Empty()  # the program ends by itself when the engine closes its resource monitor

    def Run(self, request: Any, context: grpc.ServicerContext) -> Any:
        folder = Path(request.info.program_directory)
        entry = folder / request.info.entry_point
        main = entry / "__main__.py" if entry.is_dir() else entry
        os.chdir(request.pwd or folder)
        # As for a script: the program's own folder comes first, and nothing of the rehearsal's is in the way.
        sys.path[0] = str(main.parent)
        sys.argv = [str(main)]

        def program() -> None:
            runpy.run_path(str(main), run_name="__main__")

        self.program = program
        try:
            response = super().Run(request, context)  # type: ignore[no-untyped-call]
        except RunError:
            # The runner has logged it, and met it again in a task that waited for the same thing.
            return language_pb2.RunResponse(bail=True)
        # The runner has logged the error already. Pulumi's own host bails then, or the engine says it a second time.
        return language_pb2.RunResponse(bail=True) if response.error else response


def main() -> None:
    quiet_signals(also_interrupt=True)
    end_with(os.getppid())
    if session := os.environ.get(SESSION):  # the engine looks after no one's end; without us and the providers it ends
        end_with(int(session))
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=_LIMITS)
    servicer: LanguageRuntimeServicer = Host()
    add_LanguageRuntimeServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
