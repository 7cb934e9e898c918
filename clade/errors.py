"""What a user can get wrong. Every message says what came, what is needed and what to do."""


class CladeError(ValueError):
    """Base of every error that the user can cure; the command line shows it without a traceback."""


class LabelError(CladeError):
    """A label map, an instance map or a label space that cannot be used as it is."""


class DataError(CladeError):
    """A dataset folder or file that cannot be used as it is."""


class CheckpointError(CladeError):
    """A weights file that cannot be used as it is."""


class RecipeError(CladeError):
    """A recipe or an override on the command line that cannot be used as it is."""


class UsageError(CladeError):
    """Wrong words on the command line."""


def first_line(error: BaseException) -> str:
    """What another library's error says, without the lines that only its developers read."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
