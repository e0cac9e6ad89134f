"""The one way set-up and sessions fail."""


class SetupError(Exception):
    """Something outside the program is missing or broken. `next_step` says what the person can do about it."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(f"{message}\nNext: {next_step}")
        self.message = message
        self.next_step = next_step
