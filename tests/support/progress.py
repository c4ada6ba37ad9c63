"""Progress pushed to an operator as a pod does, with a token that is bound to the pod."""

import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from anomaly_api.run import PROGRESS_AUDIENCE, PROGRESS_PATH, ProgressUpdate
from support.kube import Namespace
from support.process import OperatorProcess


class Answer(NamedTuple):
    """What the operator said."""

    status: int
    body: dict[str, Any]
    """{} for an answer without one."""


def progress_token(namespace: Namespace, pod: str, audience: str = PROGRESS_AUDIENCE) -> str:
    """Return a token of the pod."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--audience={audience}")
    return namespace.kubectl("create", "token", "default", *bound).strip()


def push(operator: OperatorProcess, token: str, update: ProgressUpdate) -> Answer:
    """Push an update and return the answer."""
    request = urllib.request.Request(
        operator.url + PROGRESS_PATH,
        update.model_dump_json(by_alias=True).encode(),
        {"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
            return Answer(int(answer.status), json.loads(text) if text else {})
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, {})
