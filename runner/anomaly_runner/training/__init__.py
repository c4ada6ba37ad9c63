"""Stage train: turns batches of images into a model that can score. Exports, tests and publishes nothing."""
