"""Public datasets, downloaded from where they are published and laid out as folders like anybody's own.

``remote_files`` says what is published where, with digests; ``download`` downloads a file; ``mnist`` and ``mvtec`` turn
files into folders; ``prepare`` puts it together.
"""

from anomaly_runner.data.builtin.prepare import files_of, prepare
from anomaly_runner.data.builtin.remote_files import PUBLISHED, DatasetCatalog

__all__ = ["PUBLISHED", "DatasetCatalog", "files_of", "prepare"]
