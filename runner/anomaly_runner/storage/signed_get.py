"""Reading an object with as little as possible around the request: what makes many small files fast.

A call of botocore's client costs four times the CPU of the request itself (parameters, endpoint rules, parsing,
hooks). Here botocore's signer and its HTTP session are used alone. Whatever is not a plain success is left to the
client, which knows redirects, refusals and retries: it then asks again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

_SUCCESS = (200, 206)


@dataclass(frozen=True)
class SignedGet:
    """GET requests to one bucket. Safe to use from many threads."""

    base: str
    """URL of the bucket."""
    region: str
    credentials: Any
    session: Any
    """botocore's HTTP session, with its pool of connections."""

    def body(self, key: str, headers: Mapping[str, str]) -> Any:
        """The object's content as botocore's StreamingBody; None where the client should be asked instead."""
        from botocore.exceptions import HTTPClientError
        from botocore.response import StreamingBody
        from urllib3.exceptions import HTTPError

        try:
            response = self.session.send(self._request(key, headers))
            if response.status_code in _SUCCESS:
                return StreamingBody(response.raw, response.headers.get("content-length"))
            response.content  # noqa: B018 - read to its end, so that the connection can serve again
        except (HTTPClientError, HTTPError):
            pass
        return None

    def _request(self, key: str, headers: Mapping[str, str]) -> Any:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("GET", f"{self.base}/{quote(key)}", dict(headers), stream_output=True)
        S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", self.region).add_auth(request)
        return request.prepare()


def bucket_url(endpoint: str, bucket: str, *, path_style: bool) -> str:
    """URL of a bucket: below the endpoint, or as a part of its host name where certificates allow that."""
    if path_style or "." in bucket:
        return f"{endpoint.rstrip('/')}/{bucket}"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}"
