"""Messages stay dictionaries."""


def normalize_messages(messages):
    return list(messages)
