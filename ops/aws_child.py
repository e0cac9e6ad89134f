"""Runs with the packages of requirements-aws.txt and nothing of ours: one JSON request a line, one JSON answer a line.

    {"service": "ec2", "operation": "describe_instances", "region": "us-east-2", "parameters": {…}}
    -> {"ok": {…}}   every page of it, times as ISO 8601
    -> {"code": "ExpiredToken", "message": "…"}

No credential is ever in a request, an answer or an error: boto3 finds them where the AWS CLI does.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any


def main() -> None:
    """Answer until the other side hangs up."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    # Answers that a person waits for: three tries are enough, and a host that does not answer is told of in half a minute.
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5, read_timeout=20)
    clients: dict[tuple[str, str], Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = asked["service"], asked["region"]
        try:
            if key not in clients:
                clients[key] = boto3.client(key[0], region_name=key[1], config=config)
            answer: dict[str, Any] = {"ok": _call(clients[key], asked["operation"], asked["parameters"])}
        except ClientError as error:
            said = error.response.get("Error", {})
            answer = {"code": str(said.get("Code", "Unknown")), "message": str(said.get("Message", error))}
        except (BotoCoreError, ResponseParserError) as error:  # no credentials, no network, parameters that cannot be
            answer = {"code": type(error).__name__, "message": str(error)}
        print(json.dumps(answer, default=_plain), flush=True)  # noqa: T201 - standard output is the answer's way


def _call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    if not client.can_paginate(operation):
        found = getattr(client, operation)(**parameters)
    else:
        found = client.get_paginator(operation).paginate(**parameters).build_full_result()
    return {name: value for name, value in found.items() if name != "ResponseMetadata"}


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


if __name__ == "__main__":
    main()
