"""Turn the listing of a bucket or folder into batches of decoded images and masks. Knows nothing of models."""
