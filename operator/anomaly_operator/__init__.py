"""A kopf operator that turns AnomalyExperiments and AnomalyInferences into Jobs and Jobs into status."""
