"""The answer in a text: the last box, or all of it."""

BOX = "\\boxed{"


def extract_answer(text: str) -> str | None:
    """The answer in a text: the content of its last `\\boxed{`, up to the closing brace or the end of the line.

    Without a box, the whole text. None where that is empty.
    """
    start = text.rfind(BOX)
    if start < 0:
        return text.strip() or None
    depth, body = 1, text[start + len(BOX) :]
    for i, character in enumerate(body):
        depth += (character == "{") - (character == "}")
        if depth == 0 or character == "\n":
            return body[:i].strip() or None
    return body.strip() or None


def answer_after(forced: str, text: str) -> str | None:
    """The answer in a text that continues a forced one, which may have opened the box."""
    return extract_answer((forced[forced.rfind(BOX) :] if BOX in forced else "") + text)
