"""Public datasets, downloaded from their publishers and laid out in folders like a user's own dataset.

``remote_files`` lists the published files with their URLs and digests; ``download`` downloads a file; ``mnist`` and
``mvtec`` convert files to folders; ``prepare`` combines all of these.
"""

from anomaly_runner.data.builtin.prepare import files_of, prepare
from anomaly_runner.data.builtin.remote_files import PUBLISHED, DatasetCatalog

__all__ = ["PUBLISHED", "DatasetCatalog", "files_of", "prepare"]
