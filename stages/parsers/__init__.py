"""Parsers: the networks trained on pseudo-labels."""
