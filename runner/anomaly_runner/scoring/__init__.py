"""Stage predict: a fitted or exported model over batches of images. Judges no score."""
