"""The small value types that several blocks of the API share, each with its bounds.

Every string and list has an upper bound: the API server estimates the cost of CEL rules from the
largest possible value.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""A Kubernetes object name (RFC 1123 subdomain)."""

Text = Annotated[str, Field(min_length=1, max_length=256)]
RegisteredName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^\.?[^/:.\s][^/:]*$")]
"""A name that MLflow's registry takes: no slash or colon, no ``.`` or ``..``."""
Pattern = Annotated[str, Field(max_length=64)]
RelativePath = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^./\\][^/\\]*(/[^./\\][^/\\]*)*$")]
"""A path below a root: no leading or trailing slash, no part that begins with a dot."""

_KEY_PART = r"([^./\x00-\x1f][^/\x00-\x1f]*|\.[^./\x00-\x1f][^/\x00-\x1f]*|\.\.[^/\x00-\x1f]+)"
"""A part of a key: any but ``.`` and ``..``, without control characters."""
S3Uri = Annotated[
    str,
    Field(max_length=1024, pattern=rf"^s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9](/({_KEY_PART}(/{_KEY_PART}?)*)?)?$"),
]
"""A bucket and a prefix, which may not lead out of the bucket's folder in runs without a cluster."""
HttpUrl = Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s/]+(/\S*)?$")]
Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
PixelSize = Annotated[int, Field(ge=32, le=4096)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
Steps = Annotated[int, Field(ge=1, le=100_000_000)]

Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
            "maxLength": 32,
        }
    ),
]
"""A Kubernetes resource quantity: 500m, 2, 8Gi."""

LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=64)]

FreeForm = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object of a core Kubernetes type that is passed on as it is; its own controller validates it."""
