"""What a release is made of beside its images: one version everywhere, notes, the chart, bills of materials."""
