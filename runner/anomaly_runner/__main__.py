"""``python -m anomaly_runner``."""

from anomaly_runner.cli import app

if __name__ == "__main__":
    app()
