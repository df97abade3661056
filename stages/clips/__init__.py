"""What goes through clip by clip: files and their digests, units of work, parts of a dataset, failures, estimates."""
