"""Stage train: from batches of images to a model that can score. Exports, tests and publishes nothing."""
