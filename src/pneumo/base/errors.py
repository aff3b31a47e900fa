"""The one exception meant for people."""


class PneumoError(Exception):
    """Something the user can mend; the message says what was expected, what came, and what to do.

    The command line prints the message alone and exits with status 1. Any other exception is a defect.
    """
