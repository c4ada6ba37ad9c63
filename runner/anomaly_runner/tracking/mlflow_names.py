"""Names and values as MLflow takes them.

A name of a metric, a parameter or a tag may have letters of any script, digits, and ``_ - . /`` and spaces, has to be a
normal path, and is at most 250 characters long (mlflow.utils.validation). Newer servers take colons as well.
"""

import posixpath
import re

from anomaly_runner.system.names import escape, shorten

_MAX_NAME_CHARACTERS = 250
MAX_PARAMETER_CHARACTERS = 6000
MAX_TAG_CHARACTERS = 5000
"""Longest value of a tag; newer servers take 8,000 characters."""
MAX_DATASET_NAME_CHARACTERS = 500
_MAX_LABEL_CHARACTERS = 200
"""Leaves room for the name of the metric in front of a label."""
_REFUSED = re.compile(r"[^\w.\- /]")
_REFUSED_IN_PATHS = re.compile(r"[^\w\- ]")
_EMPTY = "_U0000_"
"""Stands for an empty name: no other name becomes it, because none has a NUL."""


def mlflow_name(name: str, limit: int = _MAX_NAME_CHARACTERS) -> str:
    """The name as MLflow takes it: escaped (``system.names``), and at most ``limit`` characters long."""
    escaped = escape(name, _REFUSED)
    if escaped.startswith(("/", "..")) or posixpath.normpath(escaped) != escaped or escaped == ".":
        escaped = escape(name, _REFUSED_IN_PATHS)
    return shorten(escaped, limit, len) or _EMPTY


def short_value(value: str, limit: int) -> str:
    """The value if it has at most ``limit`` characters, or else its beginning and how long it is."""
    if len(value) <= limit:
        return value
    end = f"... ({len(value)} characters)"
    return value[: limit - len(end)] + end


def metric_label(label: str) -> str:
    """The label of a kind of defect as the last part of a metric's name."""
    return mlflow_name(label, _MAX_LABEL_CHARACTERS)
