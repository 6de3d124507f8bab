"""The one error type that reaches a user: one clear sentence, no traceback."""


class UserError(Exception):
    """Bad input. The message names the file or key and says what was expected.

    The command line prints it as one line and exits with status 2.
    """
