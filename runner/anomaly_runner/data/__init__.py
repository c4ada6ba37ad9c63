"""From a listing of a bucket or folder to batches of decoded images and masks. Knows nothing of models."""
