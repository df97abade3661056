"""The report: what is gathered from artifacts as plain records, and the one page that shows it, offline.

subjects (which artifacts) -> gather (records, no HTML) -> render (Jinja2, inline SVG) -> one HTML file
                                clips, pictures -> packing (label data, small pictures) ^
"""

CLIPS = 2000
"""In the viewer, where nothing else is asked for."""
MAX_BYTES = 15_000_000
"""Of the file, likewise."""
