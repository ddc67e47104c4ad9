"""The part of the standard library that is inside the sandbox. Used by `world`, and by the tests."""

from __future__ import annotations

MODULES = """
    __future__ abc array ast base64 binascii bisect calendar cmath codecs collections collections.abc colorsys
    contextlib contextvars copy csv dataclasses datetime decimal difflib enum fnmatch fractions functools graphlib
    hashlib heapq hmac html html.entities html.parser inspect io ipaddress itertools json keyword locale logging math
    numbers operator pprint random re reprlib secrets shlex statistics string string.templatelib struct sys textwrap
    time timeit tokenize traceback types typing unicodedata unittest urllib.parse uuid warnings weakref
    xml.etree.ElementTree zlib
""".split()
"""Of the standard library what a snippet can import."""
LATER = """
    _strptime encodings.ascii encodings.cp1252 encodings.cp437 encodings.hex_codec encodings.idna encodings.iso8859_15
    encodings.latin_1 encodings.punycode encodings.raw_unicode_escape encodings.rot_13 encodings.unicode_escape
    encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32 encodings.utf_8_sig
""".split()
"""What the library imports when it is first needed, when nothing can be imported any more."""
