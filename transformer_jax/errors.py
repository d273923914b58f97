"""The one exception that users are meant to see."""


class UserError(ValueError):
    """Something the user can put right: one or two sentences that name the field or file, what was found, what to do.

    The command line prints the sentence and exits with status 2, without a traceback.
    """
