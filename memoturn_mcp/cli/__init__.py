"""The command line: `memoturn`. Its entry is `main`."""
