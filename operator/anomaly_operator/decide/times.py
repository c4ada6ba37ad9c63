"""Times and durations as Kubernetes writes them."""

from datetime import UTC, datetime


def to_timestamp(moment: datetime) -> str:
    """Format a point in time as metav1.Time: RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_timestamp(text: str) -> datetime:
    """Parse a metav1.Time or metav1.MicroTime."""
    return datetime.fromisoformat(text)


def to_age(seconds: int) -> str:
    """Format a duration in one or two units, as in kubectl's AGE column: 90s, 12m, 3h20m, 2d4h."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if minutes < 2:
        return f"{seconds}s"
    if hours < 2:
        return f"{minutes}m"
    if days < 2:
        return f"{hours}h{minutes % 60}m"
    return f"{days}d{hours % 24}h"
