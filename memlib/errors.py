"""What a user is told when something they gave is wrong: one sentence, no stack trace."""


class Refused(ValueError):
    """A user's mistake, said in one sentence: what was wrong, with what value, what to do.

    Raise it for a wrong parameter, a missing file or unusable data; anything else is a bug and keeps its
    traceback. IPython shows `_render_traceback_` instead of a stack, so a notebook (and papermill's log) ends
    in the sentence itself.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
