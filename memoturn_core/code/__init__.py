"""Running snippets of Python in a sandbox: `execute` is the operation, `sandbox` what stands behind it."""
