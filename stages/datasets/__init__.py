"""Dataset readers: annotation files in, one Dataset record out."""
