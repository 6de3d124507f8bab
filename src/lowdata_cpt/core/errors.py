"""The one error type that reaches a user: one clear sentence, no traceback."""


class UserError(Exception):
    """Bad input. The message names the file or key and says what was expected.

    The command line prints it as one line and exits with status 2.
    """


LONGEST = 2000
"""Bytes of a message that lists several errors; what does not fit is counted."""


def several(where: str, lines: list[str]) -> UserError:
    """Return one error of all that was found in `where`, each on its line."""
    text, left = f"{where}: {len(lines)} error(s)", len(lines)
    for line in lines:
        entry = f"\n  {line if len(line) <= 400 else f'{line[:400]}…'}"
        if len((text + entry).encode()) > LONGEST - 40:
            break
        text, left = text + entry, left - 1
    return UserError(text + (f"\n  … and {left} more" if left else ""))
