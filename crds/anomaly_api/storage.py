"""Where data comes from and where results go: S3 and persistent volume claims."""

from enum import StrEnum

from anomaly_api.base import Contract
from anomaly_api.primitives import HttpUrl, Name, RelativePath, S3Uri, Text
from anomaly_api.rules import exactly_one, first_set


class S3Location(Contract):
    """A bucket and prefix on any S3-compatible server."""

    uri: S3Uri
    """s3://BUCKET or s3://BUCKET/PREFIX."""
    endpoint: HttpUrl | None = None
    """URL of the S3 server; unset means AWS."""
    region: Text | None = None
    """Region name, for servers that check it; unset means the one in the pod's environment, else us-east-1."""
    credentials_secret: Name | None = None
    """Secret in the same namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and
    AWS_SESSION_TOKEN if needed); unset means the pod's own identity."""
    ca_config_map: Name | None = None
    """ConfigMap in the same namespace whose key ca.crt holds the CA certificates (PEM) that verify the endpoint's HTTPS
    certificate; unset means the public certificate authorities."""


class PersistentVolumeClaimLocation(Contract):
    """A folder on a persistent volume claim in the same namespace."""

    claim_name: Name
    """Name of the claim."""
    path: RelativePath | None = None
    """Folder inside the volume; unset means its root."""


class Location(Contract):
    """A folder, on S3 or on a persistent volume claim."""

    rules = (exactly_one("s3", "persistent_volume_claim"),)

    s3: S3Location | None = None
    """A prefix on S3."""
    persistent_volume_claim: PersistentVolumeClaimLocation | None = None
    """A folder on a volume."""

    @property
    def place(self) -> S3Location | PersistentVolumeClaimLocation:
        """The location that is set."""
        return first_set(self.s3, self.persistent_volume_claim)


class LocationRole(StrEnum):
    """Purpose of a location of a run; part of the names of its credentials and its mount in the pod."""

    DATASET = "dataset"
    WEIGHTS = "weights"
    MODEL = "model"
    INPUT = "input"
    OUTPUT = "output"
    CACHE = "cache"
