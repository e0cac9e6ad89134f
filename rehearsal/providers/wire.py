"""Between Pulumi's wire form (protobuf Struct with marked secrets and unknowns) and plain Python values.

The cloud behind the providers sees plain values only. What was secret on the way in is remembered, by path and by text,
and marked secret again on the way out, so that the engine encrypts it in the state.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from pulumi.runtime.rpc import (
    UNKNOWN,
    _special_output_value_sig,
    _special_secret_sig,
    _special_sig_key,
)

from rehearsal.cloud.values import UNKNOWN as CLOUD_UNKNOWN
from rehearsal.cloud.values import digest

Path = tuple[str | int, ...]

# The engine has one sentinel per kind of value (sdk/go/common/resource/plugin/rpc.go); the Python SDK names only the first.
_UNKNOWNS = frozenset(
    {
        UNKNOWN,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
_SHORTEST_SECRET = 6  # characters; a shorter text ("true", "8080") appears by chance, so only its path marks it


@dataclass
class Secrets:
    """What was secret in the properties of one request."""

    paths: set[Path] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)

    def add(self, path: Path, value: Any) -> None:
        self.paths.add(path)
        for text in _texts(value):
            if len(text) >= _SHORTEST_SECRET:
                self.texts |= {text, base64.b64encode(text.encode()).decode()}

    def inside(self, text: str) -> bool:
        return any(secret in text for secret in self.texts)

    def redact(self, text: str) -> str:
        for secret in sorted(self.texts, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return text

    def reveal(self, value: Any) -> Any:
        """Put back the texts of which the cloud kept only a digest: it stores no secret, and the engine knows them."""
        known = {digest(text): text for text in self.texts}
        return _replace(value, known) if known else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _replace(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, dict):
        return {key: _replace(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, known) for item in value]
    return value


def decode(properties: Struct, secrets: Secrets) -> dict[str, Any]:
    """Plain values of `properties`; what is secret among them is added to `secrets`."""
    return {key: _decode(value, (key,), secrets) for key, value in properties.fields.items()}


def _decode(value: Value, path: Path, secrets: Secrets) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return CLOUD_UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_decode(item, (*path, i), secrets) for i, item in enumerate(value.list_value.values)]
        case "struct_value":
            return _decode_struct(value.struct_value, path, secrets)
        case _:
            return None


def _decode_struct(struct: Struct, path: Path, secrets: Secrets) -> Any:
    fields = struct.fields
    match fields[_special_sig_key].string_value if _special_sig_key in fields else None:
        case None:
            return {key: _decode(item, (*path, key), secrets) for key, item in fields.items()}
        case str() as sig if sig == _special_secret_sig:
            plain = _decode(fields["value"], path, secrets)
            secrets.add(path, plain)
            return plain
        case str() as sig if sig == _special_output_value_sig:
            plain = _decode(fields["value"], path, secrets) if "value" in fields else CLOUD_UNKNOWN
            if "secret" in fields and fields["secret"].bool_value:
                secrets.add(path, plain)
            return plain
        case sig:
            raise ValueError(
                f"{'.'.join(map(str, path))}: a value of kind {sig} (asset or archive) is not supported here"
            )


def encode(values: dict[str, Any], secrets: Secrets) -> Struct:
    """The wire form of `values`, with everything that `secrets` knows marked secret."""
    return Struct(fields={key: _encode(value, (key,), secrets) for key, value in values.items()})


def _encode(value: Any, path: Path, secrets: Secrets) -> Value:
    if path in secrets.paths or (isinstance(value, str) and secrets.inside(value)):
        plain = _encode(value, path, Secrets())
        return Value(
            struct_value=Struct(fields={_special_sig_key: Value(string_value=_special_secret_sig), "value": plain})
        )
    if value is CLOUD_UNKNOWN:
        return Value(string_value=UNKNOWN)
    match value:
        case None:
            return Value(null_value=0)  # type: ignore[arg-type]
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=value)
        case str():
            return Value(string_value=value)
        case dict():
            return Value(
                struct_value=Struct(fields={k: _encode(item, (*path, k), secrets) for k, item in value.items()})
            )
        case list() | tuple():
            items = [_encode(item, (*path, i), secrets) for i, item in enumerate(value)]
            return Value(list_value=ListValue(values=items))
        case _:
            raise TypeError(f"{'.'.join(map(str, path))}: {type(value).__name__} has no wire form")
