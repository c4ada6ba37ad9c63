"""The layouts that data sets come in: which files are images to learn from, to test on, or masks, by their paths."""
