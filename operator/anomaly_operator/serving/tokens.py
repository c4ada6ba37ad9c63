"""Who pushes progress: the pod that a token was made for, as the API server says (TokenReview)."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from anomaly_api.run import PROGRESS_AUDIENCE
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.resources import TOKEN_REVIEWS

KEPT_SECONDS = 60.0
KEPT_TOKENS = 10_000
ACCOUNT = "system:serviceaccount:"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class PodIdentity:
    """The pod that a token is bound to."""

    namespace: str
    name: str
    uid: str


class TokenVerifier:
    """Asks the API server about a token, and remembers the answer for a minute."""

    def __init__(self, client: ApiClient, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, tuple[float, PodIdentity | None]] = OrderedDict()

    async def pod(self, token: str) -> PodIdentity | None:
        """The pod that the token was made for; None if it is no such token."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known and self._monotonic() - known[0] < KEPT_SECONDS:
            return known[1]
        identity = await self._review(token)
        self._known[digest] = (self._monotonic(), identity)
        self._known.move_to_end(digest)
        while len(self._known) > KEPT_TOKENS:
            self._known.popitem(last=False)
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
