"""What two or more methods share, under its own name."""
