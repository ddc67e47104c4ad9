"""The formats that Memoturn shares with other programs, as pure functions over bytes: no I/O, no clock.

`wal` reads what SQLite has written, `ltx` writes what object storage keeps, `checksums` ties a chain of
LTX files to the database that it describes.
"""
