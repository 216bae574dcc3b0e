"""Any setting of the chain over a list of values: ablations and their truth."""
