"""Fills a weights cache for clusters without internet, in the layout that ``model.weights`` wants."""
