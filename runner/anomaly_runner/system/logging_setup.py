"""Set up logging: one JSON object a line in pods, short lines on a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD_ATTRIBUTES = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""Attributes that every log record has; all others were passed as ``extra``."""


class JsonFormatter(logging.Formatter):
    """Formats a log record, including its ``extra`` attributes, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD_ATTRIBUTES}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_for_pods() -> None:
    """Log JSON lines to standard error: the runner's own from level INFO, libraries' from level WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    _install(handler, logging.INFO)


def log_for_people(verbose: bool) -> None:
    """Log short lines to standard error: libraries' warnings and, with ``verbose``, the runner's own from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    _install(handler, logging.INFO if verbose else logging.CRITICAL)


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("anomaly_runner").setLevel(level)
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of missing weights of the head, which is not used
