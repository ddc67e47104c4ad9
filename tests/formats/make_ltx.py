"""Make the golden LTX files, whose content is known by rule. Files that are there are never made again."""

from __future__ import annotations

from pathlib import Path

from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.formats.ltx import LtxFile, encode

PAGE_SIZE = 512
MADE_AT = 1_700_000_000_000

# Of each transaction the pages that it writes, and the size of the database after it.
TRANSACTIONS = [([1, 2, 3], 3), ([1, 3, 5], 5), ([2], 5), ([1, 2], 2), ([], 0), ([1, 2, 3, 4], 4)]


def page(txid: int, pgno: int) -> bytes:
    """A page that compresses, for an even number; one that does not, for an odd one."""
    if pgno % 2 == 0:
        return f"page {pgno} as of transaction {txid}, ".encode().ljust(32, b".") * (PAGE_SIZE // 32)
    state, content = txid * 1000 + pgno, bytearray()
    while len(content) < PAGE_SIZE:
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        content += (state >> 32).to_bytes(4, "big")
    return bytes(content)


def history() -> list[LtxFile]:
    """The transactions as a chain that begins with a snapshot."""
    checksums = PageChecksums(PAGE_SIZE)
    files = []
    for txid, (written, commit) in enumerate(TRANSACTIONS, 1):
        pages = {pgno: page(txid, pgno) for pgno in written}
        before = checksums.rolling if txid > 1 else 0
        checksums.apply(pages, commit)
        made_at = MADE_AT + txid * 1000
        origin = {} if txid == 1 else {"wal_offset": 32 + txid, "wal_size": 536, "wal_salt1": 7, "wal_salt2": txid}
        files.append(
            LtxFile(PAGE_SIZE, commit, txid, txid, made_at, before, checksums.rolling, pages, **origin, node_id=txid)
        )
    return files


def contents() -> dict[str, list[LtxFile]]:
    """What each golden file holds."""
    files = history()
    return {"snapshot-v3.ltx": files[:1], "delta-v3.ltx": files[1:2], "segment-v3.ltx": files[1:]}


def main() -> None:
    for name, files in contents().items():
        path = Path(__file__).with_name(name)
        if not path.exists():
            path.write_bytes(b"".join(encode(file) for file in files))


if __name__ == "__main__":
    main()
