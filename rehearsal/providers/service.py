"""The pretend aws and kubernetes providers: Pulumi's provider protocol in front of `rehearsal.cloud`.

One class serves both packages. It translates; every rule about what exists, collides, waits or is refused stands in
the cloud. Errors reach the engine as the real providers' do: a refused operation as a plain error, a resource that
exists but did not get ready as ErrorResourceInitFailed with its partial state.
"""

import json
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import yaml
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import ResourceProviderServicer, plugin_pb2
from pulumi.runtime.proto import provider_pb2 as pb

from rehearsal.cloud.cloud import Caller
from rehearsal.cloud.values import UNKNOWN, CloudError, Unfinished
from rehearsal.providers.wire import Secrets, decode, encode

if TYPE_CHECKING:
    from rehearsal.cloud import Cloud

_STATUS_DETAILS = "grpc-status-details-bin"
# A plain error of a provider arrives with this code, and the engine then treats the outcome as unknown, as it does for aws.
_REFUSED = grpc.StatusCode.UNKNOWN


class Provider(ResourceProviderServicer):
    """`package` is aws or kubernetes; `log` takes the tracebacks of our own mistakes."""

    def __init__(self, package: str, version: str, cloud: "Cloud", log: Path) -> None:
        self.package, self.version, self.cloud, self.log = package, version, cloud, log

    # What kind of provider this is.

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=self.version)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:
        return Empty()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return Empty()  # what is in flight finishes: virtual minutes take no time, and nothing is left half made

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.GetSchemaResponse(schema=json.dumps({"name": self.package, "version": self.version}))

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"{request.tok}: the pretend providers answer no data sources; the program must plan without asking the cloud",
        )

    # Its configuration.

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        secrets = Secrets()
        old, new = decode(request.old_inputs or request.olds, secrets), decode(request.news, secrets)
        changed = sorted(key for key in {*old, *new} - {"version"} if old.get(key) != new.get(key))
        replaces = cluster_changes(old, new) if self.package == "kubernetes" else []
        return pb.DiffResponse(
            changes=pb.DiffResponse.DIFF_SOME if changed or replaces else pb.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=replaces,
        )

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        # Region, account and upsert decide what the cloud refuses. Lists arrive as JSON text.
        given = decode(request.args, Secrets())
        self.cloud.configure(self.package, {key: _unpacked(value) for key, value in given.items()})
        return pb.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    # The life of a resource.

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._serving(request, context) as secrets:
            if not self.cloud.known(request.type):
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"{request.type} is not a type the pretend cloud knows. It would prove nothing about it: "
                    "add its rules, each with a source, to rehearsal/cloud/rules.py",
                )
            olds = decode(request.olds, secrets) or None
            news = decode(request.news, secrets)
            result = self.cloud.check(request.type, request.urn, olds, news)
            return pb.CheckResponse(
                inputs=encode(result.inputs, secrets),
                failures=[pb.CheckFailure(property=prop, reason=why) for prop, why in result.failures],
            )

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._serving(request, context) as secrets:
            old_inputs, old_outputs = decode(request.old_inputs, secrets), decode(request.olds, secrets)
            new_inputs = decode(request.news, secrets)
            result = self.cloud.diff(request.type, request.id, old_inputs, old_outputs, new_inputs)
            replaces = set(result.replaces)
            return pb.DiffResponse(
                changes=pb.DiffResponse.DIFF_SOME if result.changes else pb.DiffResponse.DIFF_NONE,
                diffs=sorted({_top(path) for path in result.diffs}),
                replaces=sorted({_top(path) for path in replaces}),
                deleteBeforeReplace=result.delete_before_replace,
                hasDetailedDiff=True,
                detailedDiff={
                    path: pb.PropertyDiff(kind=_kind(path, old_inputs, new_inputs, path in replaces), inputDiff=True)
                    for path in sorted({*result.diffs, *replaces})
                },
            )

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._serving(request, context) as secrets:
            inputs = decode(request.properties, secrets)
            made, outputs = self.cloud.create(
                request.type,
                request.urn,
                inputs,
                preview=request.preview,
                timeout_s=request.timeout or None,
                caller=self._caller(context),
            )
            return pb.CreateResponse(id="" if request.preview else made, properties=encode(outputs, secrets))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._serving(request, context) as secrets:
            decode(request.properties, secrets)
            decode(request.inputs, secrets)
            found = self.cloud.read(request.type, request.id)
            if found is None:
                return pb.ReadResponse()
            made, inputs, outputs = found
            return pb.ReadResponse(
                id=made,
                inputs=encode(secrets.reveal(inputs), secrets),
                properties=encode(secrets.reveal(outputs), secrets),
            )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._serving(request, context) as secrets:
            outputs = self.cloud.update(
                request.type,
                request.urn,
                request.id,
                decode(request.old_inputs, secrets),
                decode(request.olds, secrets),
                decode(request.news, secrets),
                preview=request.preview,
                timeout_s=request.timeout or None,
                caller=self._caller(context),
            )
            return pb.UpdateResponse(properties=encode(outputs, secrets))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._serving(request, context) as secrets:
            old_inputs, old_outputs = decode(request.old_inputs, secrets), decode(request.properties, secrets)
            self.cloud.delete(
                request.type,
                request.urn,
                request.id,
                old_inputs,
                old_outputs,
                timeout_s=request.timeout or None,
                caller=self._caller(context),
            )
            return Empty()

    def _caller(self, context: grpc.ServicerContext) -> Caller:
        """Who asks; forgotten once the connection has ended, which for an answered request is of no consequence."""
        caller = Caller()
        if not context.add_callback(lambda: self.cloud.forget(caller)):
            self.cloud.forget(caller)
        return caller

    @contextmanager
    def _serving(self, request: Any, context: grpc.ServicerContext) -> Iterator[Secrets]:
        """Turns what the cloud raises into what the engine expects; no message carries a secret of the request."""
        secrets = Secrets()
        try:
            yield secrets
        except CloudError as error:
            context.abort(_REFUSED, secrets.redact(str(error)))
        except Unfinished as error:
            _abort_unfinished(context, request, error, secrets)
        except Exception as error:
            if context.code() is not None:  # type: ignore[attr-defined]  # abort() above ends by raising, too
                raise
            with self.log.open("a") as log:
                log.write(secrets.redact(f"{request.urn}\n{traceback.format_exc()}\n"))
            context.abort(
                grpc.StatusCode.INTERNAL,
                secrets.redact(f"the pretend cloud itself failed: {type(error).__name__}: {error} (see {self.log})"),
            )


def _abort_unfinished(context: grpc.ServicerContext, request: Any, error: Unfinished, secrets: Secrets) -> NoReturn:
    """The resource exists but is not ready: the engine then records it, and destroys or repairs it later."""
    reasons = [secrets.redact(reason) for reason in error.reasons]
    if error.inputs is not None:
        inputs = encode(secrets.reveal(error.inputs), secrets)
    else:
        inputs = request.news if isinstance(request, pb.UpdateRequest) else request.properties
    detail = AnyMessage()
    detail.Pack(
        pb.ErrorResourceInitFailed(
            id=error.id, properties=encode(error.outputs, secrets), reasons=reasons, inputs=inputs
        )
    )
    message = "; ".join(reasons)
    status = status_pb2.Status(code=_REFUSED.value[0], message=message, details=[detail])
    context.set_trailing_metadata(((_STATUS_DETAILS, status.SerializeToString()),))
    context.abort(_REFUSED, message)
    raise AssertionError("abort() raises")


def cluster_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys for which a kubernetes provider, and with it every object in the cluster, is replaced.

    As the real one decides (facts/pulumi.md §10): with `clusterIdentifier` on both sides only a change of it counts.
    Otherwise the cluster that the kubeconfig's active context points to does, and an unknown counts as a change.
    """
    identifiers = old.get("clusterIdentifier"), new.get("clusterIdentifier")
    if all(identifiers):
        return ["clusterIdentifier"] if identifiers[0] != identifiers[1] else []
    unknown = [key for key in ("kubeconfig", "context", "cluster") if new.get(key) is UNKNOWN]
    if unknown:
        return unknown
    return ["kubeconfig"] if _active_cluster(old) != _active_cluster(new) else []


def _active_cluster(config: dict[str, Any]) -> Any:
    try:
        kubeconfig = yaml.safe_load(config.get("kubeconfig") or "{}")
        context = config.get("context") or kubeconfig.get("current-context")
        contexts = {item["name"]: item["context"] for item in kubeconfig.get("contexts", [])}
        name = config.get("cluster") or contexts.get(context, {}).get("cluster")
        return next((item["cluster"] for item in kubeconfig.get("clusters", []) if item["name"] == name), None)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return config.get("kubeconfig")  # a path, or not a kubeconfig: compare it as it stands


def _unpacked(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def _top(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]


_KINDS: dict[tuple[bool, bool], Callable[[bool], Any]] = {
    (False, True): lambda r: pb.PropertyDiff.ADD_REPLACE if r else pb.PropertyDiff.ADD,
    (True, False): lambda r: pb.PropertyDiff.DELETE_REPLACE if r else pb.PropertyDiff.DELETE,
    (True, True): lambda r: pb.PropertyDiff.UPDATE_REPLACE if r else pb.PropertyDiff.UPDATE,
    (False, False): lambda r: pb.PropertyDiff.UPDATE_REPLACE if r else pb.PropertyDiff.UPDATE,
}


def _kind(path: str, old: dict[str, Any], new: dict[str, Any], replaces: bool) -> Any:
    return _KINDS[_has(old, path), _has(new, path)](replaces)


def _has(values: Any, path: str) -> bool:
    """Whether a property path such as `spec.template`, `subnetIds[0]` or `tags["a.b"]` leads to a value."""
    for quoted, index, name in re.findall(r'\["([^"]*)"\]|\[(\d+)\]|([^.\[\]]+)', path):
        key: Any = int(index) if index else quoted or name
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return False
    return values is not None
