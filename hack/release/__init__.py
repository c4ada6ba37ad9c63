"""The parts of a release besides its images: a consistent version, notes, the chart, bills of materials."""
