"""Fills a weights cache for clusters without internet, in the layout of ``model.weights``."""
