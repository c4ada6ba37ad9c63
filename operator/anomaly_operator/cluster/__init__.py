"""The cluster as the operator sees and changes it: client, cache, leader election, planned actions. Decides nothing."""
