"""The side of the API server: client, cache, leader election, performing what was decided. Decides nothing itself."""
