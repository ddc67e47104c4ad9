"""`/docs`: the OpenAPI description as one readable page, without scripts and without other hosts."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{background:#f5f5f5;padding:.8rem;overflow:auto}
h2{margin-top:2.5rem;border-top:1px solid #ddd;padding-top:1rem;font-size:1.1rem}
.m{display:inline-block;min-width:4.5em;font-weight:700}
td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0}
"""


def page(document: dict[str, Any]) -> str:
    """HTML for a person who wants to try the API with curl."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Memoturn API</title><style>{_STYLE}</style>",
        f"<h1>Memoturn API {escape(document['info']['version'])}</h1>",
        "<p>Every error is <code>{&quot;error&quot;, &quot;code&quot;}</code>. Answers that touch a database carry the "
        "header <code>Memoturn-Txid</code>. For machines: <a href=/openapi.json>/openapi.json</a>.</p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation, document))
    parts.append("<h2>Shapes</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<h3 id={escape(name)}>{escape(name)}</h3>{_json(schema)}")
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    text = operation.get("description", operation["summary"])
    title = f"<span class=m>{method.upper()}</span> <code>{escape(path)}</code>"
    html = f"<h2 id={escape(operation['operationId'])}>{title}</h2><p>{escape(text)}</p>"
    parameters = [_resolved(each, document) for each in operation.get("parameters", [])]
    if parameters:
        rows = "".join(
            f"<tr><td><code>{escape(each['name'])}</code><td>{escape(each['in'])}<td>{escape(each['description'])}"
            for each in parameters
        )
        html += f"<table>{rows}</table>"
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        html += f"<p>Body, <code>{escape(media_type)}</code></p>{_json(body['schema'])}"
    statuses = "".join(
        f"<tr><td><code>{status}</code><td>{escape(_resolved(response, document)['description'])}"
        for status, response in operation["responses"].items()
    )
    return html + f"<table>{statuses}</table>"


def _resolved(node: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """What is meant, where the node only refers to a component."""
    if "$ref" not in node:
        return node
    _, components, kind, name = node["$ref"].split("/")
    meant: dict[str, Any] = document[components][kind][name]
    return meant


def _json(schema: dict[str, Any]) -> str:
    return f"<pre>{escape(json.dumps(schema, indent=2))}</pre>"
