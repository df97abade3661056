"""What tests of recipes share: a recipe as a file, and what was printed of AVE."""

ACCURACY = {"parser-han-ave": 75.3, "parser-valor-ave": 80.4, "parser-uwav-ave": 80.6}
"""Percent of seconds: UWAV (CVPR 2025), Table 2."""
GOOD = """
title = "mine"
paper = "none"
[[steps]]
id = "labels"
stage = "pseudolabel"
inputs = { dataset = "@dataset", features = "@features" }
params = { method = "video-labels" }
[[steps]]
id = "scores"
stage = "evaluate"
inputs = { predictions = "labels", dataset = "@dataset" }
[[published]]
labels = "theirs"
split = "val"
source = "a table"
segment = { A = 50.0 }
"""
"""A whole recipe."""
