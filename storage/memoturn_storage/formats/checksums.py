"""The checksum by which LTX names a state of a database, kept up to date from commit to commit.

A page's checksum is a CRC-64/ISO over its number (4 bytes, big-endian) and its bytes; a database's is the
XOR of its pages' checksums; both with the highest bit set, so that none is ever zero. The page with the
bytes that SQLite locks has no content and counts for nothing, and an empty database is the highest bit
alone. Called by `memoturn_storage.formats.ltx` and by who captures and restores databases.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import xor
from struct import Struct

from fastcrc.crc64 import go_iso

CHECKSUM_FLAG = 1 << 63
_PENDING_BYTE = 0x40000000
"""Where SQLite's locks lie in a file (https://sqlite.org/fileformat2.html#the_lock_byte_page)."""

_number = Struct(">I").pack


def page_checksum(pgno: int, page: bytes) -> int:
    """The checksum of one page."""
    return go_iso(_number(pgno) + page) | CHECKSUM_FLAG


def lock_page(page_size: int) -> int:
    """The number of the page that SQLite locks and never writes; databases under 1 GiB do not reach it."""
    return _PENDING_BYTE // page_size + 1


def rolling_checksum(pages: Iterable[tuple[int, bytes]]) -> int:
    """The checksum of the database that consists of these pages, the lock page not being among them."""
    rolling = 0
    for pgno, page in pages:
        rolling ^= go_iso(_number(pgno) + page)
    return rolling | CHECKSUM_FLAG


class PageChecksums:
    """The checksums of all pages of one database, 8 bytes a page, and with them its rolling checksum.

    Starts as the empty database.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self._lock_page = lock_page(page_size)
        self._zeros = bytes(page_size)
        self._pages = array("Q")
        self._rolling = 0

    @classmethod
    def of_image(cls, image: bytes | bytearray | memoryview, page_size: int) -> PageChecksums:
        """The checksums of the file `image`.

        Raises:
            ValueError: the image is not a whole number of pages.
        """
        if len(image) % page_size:
            raise ValueError(f"an image of {len(image)} bytes is no whole number of pages of {page_size} bytes")
        checksums = cls(page_size)
        with memoryview(image) as pages:
            checksums._extend(pages[start : start + page_size] for start in range(0, len(image), page_size))
        return checksums

    @property
    def rolling(self) -> int:
        """The checksum of the whole database, as the fields `pre_apply` and `post_apply` hold it."""
        return self._rolling | CHECKSUM_FLAG

    @property
    def commit(self) -> int:
        """The size of the database in pages."""
        return len(self._pages)

    def apply(self, pages: Mapping[int, bytes], commit: int) -> None:
        """Follow a transaction that wrote `pages` and left the database with `commit` pages.

        A page that the database grew by without its being written is all zeros, as it is in a file that
        was extended.

        Raises:
            ValueError: a page lies outside the database or is of another size; nothing was changed.
        """
        for pgno, page in pages.items():
            if not 0 < pgno <= commit or len(page) != self.page_size:
                raise ValueError(f"page {pgno} of {len(page)} bytes in {commit} pages of {self.page_size} bytes")
        self._rolling = reduce(xor, self._pages[commit:], self._rolling)
        del self._pages[commit:]
        if len(self._pages) < commit:
            self._extend(self._zeros for _ in range(len(self._pages), commit))
        for pgno, page in pages.items():
            if pgno != self._lock_page:
                checksum = go_iso(_number(pgno) + page)
                self._rolling ^= self._pages[pgno - 1] ^ checksum
                self._pages[pgno - 1] = checksum

    def _extend(self, pages: Iterable[bytes | memoryview]) -> None:
        size = len(self._pages)
        self._pages.extend([go_iso(_number(pgno) + page) for pgno, page in enumerate(pages, size + 1)])
        if size < self._lock_page <= len(self._pages):
            self._pages[self._lock_page - 1] = 0
        self._rolling = reduce(xor, self._pages[size:], self._rolling)
