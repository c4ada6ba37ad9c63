"""The API server: client, cache, Lease, and carrying out what was decided. Decides nothing itself."""
