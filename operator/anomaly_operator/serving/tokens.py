"""Authenticate pods that push progress: a TokenReview says which pod a token was made for.

The server decides whether that pod may report progress of a run.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from anomaly_api.run import PROGRESS_AUDIENCE
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.resources import TOKEN_REVIEWS

CACHE_SECONDS = 60.0
"""Seconds for which an answer of the API server is reused."""
CACHE_SIZE = 10_000
"""Maximum number of answers that are kept."""
ACCOUNT = "system:serviceaccount:"
"""Prefix of the user name of every ServiceAccount."""
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class PodIdentity:
    """The pod that a token is bound to."""

    namespace: str
    name: str
    uid: str


class TokenVerifier:
    """Asks the API server about tokens, and caches its answers for ``CACHE_SECONDS``.

    Args:
        client: the API server.
        monotonic: a clock in seconds.
    """

    def __init__(self, client: ApiClient, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._monotonic = monotonic
        # Answers by digest of the token, oldest first, each with the time at which it was given.
        self._answers: OrderedDict[bytes, tuple[float, PodIdentity | None]] = OrderedDict()

    async def authenticate(self, token: str) -> PodIdentity | None:
        """Return the pod that the token was made for; None if the token is not one for progress.

        Raises:
            ApiError: the API server could not be asked.
            LoginError: the operator's own credentials were rejected and there are no others.
        """
        digest = hashlib.sha256(token.encode()).digest()
        answered_at, identity = self._answers.get(digest, (float("-inf"), None))
        if self._monotonic() - answered_at < CACHE_SECONDS:
            return identity
        identity = await self._review(token)
        self._answers[digest] = (self._monotonic(), identity)
        self._answers.move_to_end(digest)
        while len(self._answers) > CACHE_SIZE:
            self._answers.popitem(last=False)
        return identity

    async def _review(self, token: str) -> PodIdentity | None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
        }
        status = (await self._client.create(TOKEN_REVIEWS, None, review)).get("status", {})
        user = status.get("user", {})
        extra, account = user.get("extra", {}), user.get("username", "")
        if not status.get("authenticated") or not account.startswith(ACCOUNT) or POD_NAME not in extra:
            return None
        if PROGRESS_AUDIENCE not in status.get("audiences", ()):
            return None
        namespace = account.removeprefix(ACCOUNT).split(":")[0]
        return PodIdentity(namespace, extra[POD_NAME][0], extra[POD_UID][0])
