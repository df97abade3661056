"""The rendered world: videos made by the project, for the demo and the tests."""

from avvp_pipe.stages.datasets.rendered.world import Size, WorldFiles, render_world

__all__ = ["Size", "WorldFiles", "render_world"]
