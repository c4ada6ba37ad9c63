"""One run in, artifacts and a report out: trains or infers as its RunConfig says."""
