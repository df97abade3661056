"""The stages of the pipeline, one file each, and the parts that they are made of."""
