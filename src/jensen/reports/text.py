"""Names and reasons as text that nothing obeys: they come from the folders of runs, which may be a
stranger's.
"""

import re

_SPECIAL = {
    "\\": "\\\\",
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "\\|",
    "`": "\\`",
    "*": "\\*",
}


def one_line(text: str) -> str:
    """Text without line breaks, a terminal's escapes, and bytes that are no UTF-8."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no links, and no pictures, which would be
    fetched.
    """
    for special, shown_as in _SPECIAL.items():
        text = text.replace(special, shown_as)
    return re.sub(r"\](?=[(\[:])", r"]\\", text)


def code(text: str) -> str:
    """Text between as many backticks as it needs."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return f"`{text}`" if not longest else f"{'`' * (longest + 1)} {text} {'`' * (longest + 1)}"


def formula_free(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula; numbers are left as they
    are.
    """
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "|", "%")) else text
    return text
