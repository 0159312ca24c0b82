"""The one exception for bad input."""


class InputError(Exception):
    """What the user gave cannot be used.

    The message is one sentence that says what is wrong and, where something can be done, what. It is shown as it is:
    by the command line (exit code 2) and by the window.
    """
