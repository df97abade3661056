"""What goes wrong in a store, said so that the reader can mend it."""


class StoreError(ValueError):
    """A reference, an artifact or the folder of a store is not what was wanted."""


class StoreWriteError(StoreError):
    """The store cannot be written: no permission, no space, no such device."""


class ArtifactNotFoundError(StoreError, FileNotFoundError):
    """No artifact of that name and key is complete in the store."""

    def __str__(self) -> str:
        return str(self.args[0])
