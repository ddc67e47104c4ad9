"""LTX version 3: the pages that one or more transactions changed, as one file (https://github.com/superfly/ltx).

The public format of Litestream and LiteFS, so that a database can be got back with public tools alone. A
file is a header, the pages ascending by number and compressed one by one, an index of them, and a trailer
with checksums; integers are big-endian:

    header   magic LTX1, flags, page size, commit (pages of the database afterwards), min txid, max txid,
             timestamp (ms), pre-apply checksum, WAL offset, WAL size, WAL salts 1 and 2, node id, 20 reserved
    page     page number (4), flags (2), size (4), an LZ4 block of `size` bytes
    end      a page number and flags of zero
    index    for each page its number, its offset in the file and its length there, as unsigned varints;
             a varint 0; the length of all these (8)
    trailer  post-apply checksum (8), file checksum (8)

The file checksum is a CRC-64/ISO over everything before it, with the pages uncompressed. A file with min
txid 1 is a snapshot: it holds every page and has a pre-apply checksum of 0. What the format has besides
(databases without checksums, pages as LZ4 frames) is refused here: nothing writes it that we read.

A segment is a concatenation of LTX files, one a transaction. Called by who captures, compacts and restores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct

from fastcrc.crc64 import go_iso
from lz4.block import LZ4BlockError, compress, decompress  # type: ignore[import-untyped]

from memoturn_storage.formats.checksums import CHECKSUM_FLAG, lock_page, rolling_checksum

_HEADER = Struct(">4sIIIQQqQqqIIQ20x")
_PAGE = Struct(">IHI")
_UINT64 = Struct(">Q")
_MAGIC = b"LTX1"
_END_OF_PAGES = bytes(6)
_SIZE_PRECEDES_DATA = 1


class LtxCorrupt(Exception):
    """These bytes are no LTX file of ours. The message says what is wrong and at which byte."""


@dataclass(frozen=True, slots=True)
class LtxFile:
    """What transactions `min_txid` to `max_txid` changed, and the states before and after them."""

    page_size: int
    commit: int
    """The size of the database afterwards, in pages."""
    min_txid: int
    max_txid: int
    timestamp_ms: int
    pre_apply: int
    """The rolling checksum of the database before; 0 in a snapshot."""
    post_apply: int
    pages: Mapping[int, bytes] = field(repr=False)
    """By number, ascending."""
    wal_offset: int = 0
    wal_size: int = 0
    wal_salt1: int = 0
    wal_salt2: int = 0
    node_id: int = 0

    @property
    def is_snapshot(self) -> bool:
        return self.min_txid == 1


def encode(file: LtxFile) -> bytes:
    """The bytes of an LTX file.

    Raises:
        ValueError: the format does not allow such a file.
    """
    fault = _fault(file)
    if fault is not None:
        raise ValueError(fault)
    header = _HEADER.pack(
        _MAGIC,
        0,
        file.page_size,
        file.commit,
        file.min_txid,
        file.max_txid,
        file.timestamp_ms,
        file.pre_apply,
        file.wal_offset,
        file.wal_size,
        file.wal_salt1,
        file.wal_salt2,
        file.node_id,
    )
    stored, plain = [header], [header]
    index: list[int] = []
    offset = len(header)
    for pgno, page in file.pages.items():
        data = compress(page, "default", False)
        page_header = _PAGE.pack(pgno, _SIZE_PRECEDES_DATA, len(data))
        stored += (page_header, data)
        plain += (page_header, page)
        length = len(page_header) + len(data)
        index += (pgno, offset, length)
        offset += length
    end = _index(index) + _UINT64.pack(file.post_apply)
    stored.append(end)
    plain.append(end)
    stored.append(_UINT64.pack(go_iso(b"".join(plain)) | CHECKSUM_FLAG))
    return b"".join(stored)


def decode(data: bytes | memoryview, offset: int = 0) -> tuple[LtxFile, int]:
    """The LTX file that begins at `offset`, with everything in it verified, and the offset of its end.

    Raises:
        LtxCorrupt: there is none, it is not whole, or something in it does not agree.
    """
    if len(data) - offset < _HEADER.size:
        raise LtxCorrupt(f"byte {offset}: the LTX header is cut off at byte {len(data)}")
    magic, flags, page_size, commit, min_txid, max_txid, timestamp_ms, pre_apply, *origin = _HEADER.unpack_from(
        data, offset
    )
    if magic != _MAGIC:
        raise LtxCorrupt(f"byte {offset}: not an LTX file")
    if flags:
        raise LtxCorrupt(f"byte {offset + 4}: header flags {flags:#x}, which are not read here")
    if not _is_page_size(page_size):
        raise LtxCorrupt(f"byte {offset + 8}: a page size of {page_size} bytes")
    pages, plain, index, end_at = _decode_pages(data, offset, page_size)
    index_end = end_at + len(index)
    checksum_at = index_end + _UINT64.size
    if len(data) < checksum_at + _UINT64.size:
        raise LtxCorrupt(f"byte {end_at}: the index or the trailer is cut off at byte {len(data)}")
    if data[end_at:index_end] != index:
        raise LtxCorrupt(f"byte {end_at}: the index does not agree with the pages")
    (post_apply,) = _UINT64.unpack_from(data, index_end)
    plain.append(data[end_at:checksum_at])
    if _UINT64.unpack_from(data, checksum_at)[0] != go_iso(b"".join(plain)) | CHECKSUM_FLAG:
        raise LtxCorrupt(f"byte {checksum_at}: the file checksum does not match the content from byte {offset} on")
    file = LtxFile(page_size, commit, min_txid, max_txid, timestamp_ms, pre_apply, post_apply, pages, *origin)
    fault = _fault(file)
    if fault is not None:
        raise LtxCorrupt(f"the LTX file at byte {offset}: {fault}")
    return file, checksum_at + _UINT64.size


def decode_sequence(data: bytes | memoryview) -> Iterator[LtxFile]:
    """The LTX files of a segment, each of which goes on where the one before it ended.

    Raises:
        LtxCorrupt: while iterating; a file is corrupt or does not follow, or there is none at all.
    """
    previous: LtxFile | None = None
    offset = 0
    while previous is None or offset < len(data):
        file, end = decode(data, offset)
        if previous is not None and not _follows(previous, file):
            raise LtxCorrupt(
                f"byte {offset}: transaction {file.min_txid} does not follow the state after {previous.max_txid}"
            )
        yield file
        previous, offset = file, end


def apply_to_image(image: bytearray, file: LtxFile) -> None:
    """Bring the database file `image` from the state before `file` to the one after it; checks neither."""
    if len(file.pages) == file.commit:
        image[:] = b"".join(file.pages.values())
    else:
        apply_pages(image, file.page_size, file.pages, file.commit)


def apply_pages(image: bytearray, page_size: int, pages: Mapping[int, bytes], commit: int) -> None:
    """Make the database file `image` one of `commit` pages, these among them; what it grows by is zeros."""
    size = commit * page_size
    del image[size:]
    image.extend(bytes(size - len(image)))
    for pgno, page in pages.items():
        image[(pgno - 1) * page_size : pgno * page_size] = page


def _decode_pages(
    data: bytes | memoryview, offset: int, page_size: int
) -> tuple[dict[int, bytes], list[bytes | memoryview], bytes, int]:
    """The pages, the part of the file checksum's input up to their end, the index they must have, and their end."""
    position = offset + _HEADER.size
    pages: dict[int, bytes] = {}
    plain = [data[offset:position]]
    index: list[int] = []
    previous = 0
    while True:
        data_at = position + _PAGE.size
        if len(data) < data_at:
            raise LtxCorrupt(f"byte {position}: the pages are cut off at byte {len(data)}")
        pgno, flags, size = _PAGE.unpack_from(data, position)
        if pgno <= previous or flags != _SIZE_PRECEDES_DATA:
            if pgno == flags == 0:
                return pages, plain, _index(index), position
            raise LtxCorrupt(f"byte {position}: page {pgno} with flags {flags:#x} after page {previous}")
        end = data_at + size
        if len(data) < end:
            raise LtxCorrupt(f"byte {data_at}: page {pgno} is cut off at byte {len(data)}")
        try:
            page = decompress(data[data_at:end], page_size)
        except LZ4BlockError as error:
            raise LtxCorrupt(f"byte {data_at}: page {pgno} does not decompress") from error
        if len(page) != page_size:
            raise LtxCorrupt(f"byte {data_at}: page {pgno} has {len(page)} bytes instead of {page_size}")
        pages[pgno] = page
        plain += (data[position:data_at], page)
        index += (pgno, position - offset, end - position)
        previous, position = pgno, end


def _index(numbers: list[int]) -> bytes:
    """The end of the pages and their index; `numbers` are three a page."""
    index = bytearray(_END_OF_PAGES)
    append = index.append
    for number in numbers:
        while number > 0x7F:
            append(number & 0x7F | 0x80)
            number >>= 7
        append(number)
    append(0)
    return bytes(index + _UINT64.pack(len(index) - len(_END_OF_PAGES)))


def _follows(previous: LtxFile, file: LtxFile) -> bool:
    return (file.page_size, file.min_txid, file.pre_apply) == (
        previous.page_size,
        previous.max_txid + 1,
        previous.post_apply,
    )


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _fault(file: LtxFile) -> str | None:
    """Why the format does not allow such a file, if it does not."""
    if not _is_page_size(file.page_size):
        return f"a page size of {file.page_size} bytes"
    numbers = list(file.pages)
    lock = lock_page(file.page_size)
    if not 0 < file.min_txid <= file.max_txid:
        return f"transactions {file.min_txid} to {file.max_txid}"
    if min(file.wal_offset, file.wal_size) < 0:
        return f"a WAL offset of {file.wal_offset} and a WAL size of {file.wal_size}"
    if file.wal_offset == 0 and (file.wal_size or file.wal_salt1 or file.wal_salt2):
        return "a WAL size or WAL salts without a WAL offset"
    if numbers != sorted(numbers):
        return "the pages are not in order"
    if numbers and not 0 < numbers[0] <= numbers[-1] <= file.commit:
        return f"pages {numbers[0]} to {numbers[-1]} in a database of {file.commit}"
    if lock in file.pages:
        return f"page {lock} is the lock page"
    if any(len(page) != file.page_size for page in file.pages.values()):
        return f"a page that is not of {file.page_size} bytes"
    if not file.post_apply & CHECKSUM_FLAG:
        return "the post-apply checksum lacks its flag"
    if file.commit == 0 and file.post_apply != CHECKSUM_FLAG:
        return "the post-apply checksum of an empty database"
    if not file.is_snapshot:
        return None if file.pre_apply & CHECKSUM_FLAG else "the pre-apply checksum lacks its flag"
    if file.pre_apply:
        return "a snapshot with a pre-apply checksum"
    if len(numbers) != file.commit - (file.commit >= lock):
        return f"a snapshot with {len(numbers)} pages of {file.commit}"
    if file.post_apply != rolling_checksum(file.pages.items()):
        return "the post-apply checksum does not match the pages of the snapshot"
    return None
