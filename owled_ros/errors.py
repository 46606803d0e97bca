"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Something a user can mend; its message is one sentence: what is wrong, where, what to do."""
