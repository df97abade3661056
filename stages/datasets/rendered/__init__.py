"""The rendered world: videos made by the project, for the demo and the tests."""
