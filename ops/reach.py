"""Whether what a stack will fetch is there: images in their registries, charts in their repositories, weights on the hub.

Asks for names only and downloads nothing large. Anonymous but for the hub, which gets the stack's own token.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from recipe.plan import ChartPlan, Plan

_SECONDS = 15
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json,application/vnd.docker.distribution.manifest.list.v2+json,"
    "application/vnd.oci.image.manifest.v1+json,application/vnd.docker.distribution.manifest.v2+json"
)
_HUB = "https://huggingface.co"


class Unreachable(Exception):
    """Nobody answers: no network, a proxy, a server that is down. Says nothing about what was asked for."""


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Fetch: TypeAlias = Callable[[str, Mapping[str, str]], Answer]
"""GET a URL with headers. Raises Unreachable."""


def fetch(url: str, headers: Mapping[str, str]) -> Answer:
    """Over the network, with the proxies of the environment."""
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - https URLs of the plan
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return Answer(answer.status, answer.read(), {key.lower(): value for key, value in answer.headers.items()})
    except urllib.error.HTTPError as error:
        if error.code in (407, 502, 503, 504):
            raise Unreachable(f"{urllib.parse.urlsplit(url).hostname} answers {error.code}") from None
        return Answer(error.code, error.read(), {key.lower(): value for key, value in error.headers.items()})
    except (urllib.error.URLError, OSError) as error:
        raise Unreachable(f"{urllib.parse.urlsplit(url).hostname}: {getattr(error, 'reason', error)}") from None


def image(name: str, fetch: Fetch) -> str | None:
    """What is wrong with `registry/repository:tag`; None: it is there."""
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    url, headers = f"https://{registry}/v2/{repository}/manifests/{tag}", {"Accept": _MANIFESTS}
    found = fetch(url, headers)
    if found.status == 401:
        found = fetch(url, headers | {"Authorization": f"Bearer {_anonymous(found.headers, repository, fetch)}"})
    if found.status == 200:
        return None
    if found.status == 404:
        return f"image is not there: {registry} knows no {repository}:{tag}"
    if found.status in (401, 403):
        return f"image is not there for everyone: {registry} answers {found.status} without a login"
    raise Unreachable(f"{registry} answers {found.status}")


def _anonymous(headers: Mapping[str, str], repository: str, fetch: Fetch) -> str:
    """The token that a registry gives to anyone, from where its own answer says."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("www-authenticate", "")))
    if "realm" not in asked:
        return ""
    query = {key: asked[key] for key in ("service",) if key in asked} | {"scope": f"repository:{repository}:pull"}
    found = fetch(f"{asked['realm']}?{urllib.parse.urlencode(query)}", {})
    try:
        said: dict[str, Any] = json.loads(found.body)
    except ValueError:
        return ""
    return str(said.get("token") or said.get("access_token") or "")


def chart(wanted: ChartPlan, fetch: Fetch) -> str | None:
    """What is wrong with a chart; None: its repository lists the version."""
    found = fetch(f"{wanted.repository.rstrip('/')}/index.yaml", {})
    if found.status != 200:
        raise Unreachable(f"{wanted.repository} answers {found.status}")
    index = yaml.load(found.body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506 - safe loaders both
    versions = [str(entry.get("version")) for entry in (index.get("entries") or {}).get(wanted.chart, ())]
    if wanted.version in versions:
        return None
    newest = ", ".join(versions[:5]) or "none"
    return f"chart is not there: {wanted.repository} has no {wanted.chart} {wanted.version}; it has {newest}"


def weights(plan: Plan, token: str | None, fetch: Fetch) -> str | None:
    """What is wrong with the revision or the token; None: both are good."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if token and (who := fetch(f"{_HUB}/api/whoami-v2", headers)).status == 401:
        return f"401 Client Error: the hub does not know the token ({who.status})"
    found = fetch(f"{_HUB}/api/models/{plan.model.id}/revision/{plan.model.revision}", headers)
    match found.status:
        case 200:
            return None
        case 401 | 403 if token:
            return f"403 Client Error: the token has no access to {plan.model.id}"
        case 401 | 403:
            return f"401 Client Error: {plan.model.id} wants a token: weights.token, and `pulumi config set --secret hfToken`"
        case 404:
            return f"revision is not there: {plan.model.id} has no {plan.model.revision}"
        case 429:
            raise Unreachable("huggingface.co answers 429: too many requests")
    raise Unreachable(f"huggingface.co answers {found.status}")
