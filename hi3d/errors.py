"""The one exception that stands for a mistake in the input rather than in the code."""


class InputError(ValueError):
    """Bad input from the user: a file, an option or a folder.

    The message is one line that names the cause and the fix. Scripts print it and exit with code 2.
    """
