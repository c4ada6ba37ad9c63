"""Stage predict: runs a fitted or exported model on batches of images. Applies no threshold and computes no metric."""
