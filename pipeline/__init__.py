"""The run as data: the stages in order, what is stale and why, the demo."""
