"""Kubernetes' timestamps: RFC 3339 in UTC, whole seconds."""

from datetime import UTC, datetime


def to_timestamp(moment: datetime) -> str:
    """As metav1.Time is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
