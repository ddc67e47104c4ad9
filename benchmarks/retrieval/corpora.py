"""What is recalled from: a few texts kept as memories, and questions whose evidence among them is known.

`locomo`        every turn of a conversation is a memory; its questions are those of the data set.
`observations`  the statements that the data set makes of those conversations; the same questions, and evidence is what
                was stated of the turns that hold it.
`statements`    turns as in `locomo`, but what is asked are those statements: no question is a question.
`docstrings`    functions and classes of Python's library: the memory is the body of a docstring, the query its first
                line. No conversation, no names, long texts; the module is the session.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TURN = re.compile(r"D:?(\d+):(\d+)")

MODULES = """
    argparse array ast asyncio base64 bisect bz2 calendar cmath code codecs collections configparser contextlib copy csv
    ctypes dataclasses datetime decimal difflib dis doctest email enum fileinput fnmatch fractions ftplib functools
    getopt getpass gettext glob gzip hashlib heapq hmac html http imaplib importlib inspect io ipaddress itertools json
    keyword linecache locale logging lzma mailbox math mimetypes mmap multiprocessing netrc numbers operator os pathlib
    pickle pkgutil platform plistlib poplib pprint profile queue quopri re reprlib runpy sched selectors shelve shlex
    shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sysconfig
    tarfile tempfile textwrap threading timeit tokenize trace traceback tracemalloc types typing unicodedata unittest
    urllib.parse urllib.request uuid warnings wave weakref webbrowser xml.dom xml.etree.ElementTree xmlrpc.client
    zipfile zipimport zlib zoneinfo
    """.split()


@dataclass(frozen=True, slots=True)
class Text:
    id: str
    summary: str
    keywords: str
    session: str

    def memory(self) -> dict[str, Any]:
        return {
            "type": "event",
            "summary": self.summary,
            "content": {"id": self.id, "date": self.keywords},
            "keywords": self.keywords,
            "session_id": self.session,
        }


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    evidence: frozenset[str]
    category: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """One profile's memories, and what is asked of them."""

    name: str
    texts: list[Text]
    questions: list[Question]


CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}


def load(kind: str, directory: Path) -> list[Corpus]:
    """The corpora of a kind; `directory` holds the conversations as `{number}.json`."""
    if kind == "docstrings":
        return [_docstrings()]
    make = {"locomo": _locomo, "observations": _observations, "statements": _statements}[kind]
    files = sorted(directory.glob("*.json"))
    if not files:
        raise SystemExit(f"there is no conversation in {directory}")
    return [make(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in files]


def _locomo(name: str, data: dict[str, Any]) -> Corpus:
    texts = list(_turns(data))
    known = {text.id for text in texts}
    questions = [(each, _references(each.get("evidence")) & known) for each in data["qa"]]
    return Corpus(name, texts, [_question(each, evidence) for each, evidence in questions if evidence])


def _observations(name: str, data: dict[str, Any]) -> Corpus:
    texts: list[Text] = []
    about: list[set[str]] = []
    for session, statement, turns in _stated(data):
        texts.append(Text(f"o{len(texts)}", statement, "", session))
        about.append(turns)
    questions = []
    for each in data["qa"]:
        wanted = _references(each.get("evidence"))
        evidence = {text.id for text, turns in zip(texts, about, strict=True) if turns & wanted}
        if evidence:
            questions.append(_question(each, evidence))
    return Corpus(name, texts, questions)


def _statements(name: str, data: dict[str, Any]) -> Corpus:
    texts = list(_turns(data))
    known = {text.id for text in texts}
    stated = [(statement, turns & known) for _, statement, turns in _stated(data)]
    return Corpus(name, texts, [Question(text, frozenset(turns), "statement") for text, turns in stated if turns])


def _turns(data: dict[str, Any]) -> Iterator[Text]:
    for session in _sessions(data):
        for turn in data.get(session, []):
            said = " ".join(part for part in (turn["text"], turn.get("blip_caption")) if part)
            yield Text(turn["dia_id"], f"{turn['speaker']}: {said}", data[f"{session}_date_time"], session)


def _stated(data: dict[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    """Session, statement, and the ids of the turns that it is about."""
    for session in _sessions(data):
        for statements in data.get(f"{session}_observation", {}).values():
            for statement, turns in statements:
                yield session, statement, _references(turns)


def _sessions(data: dict[str, Any]) -> Iterator[str]:
    number = 1
    while f"session_{number}_date_time" in data:
        yield f"session_{number}"
        number += 1


def _references(given: Any) -> set[str]:
    """Ids of turns, in whatever form the data set names them."""
    return {f"D{int(session)}:{int(turn)}" for session, turn in TURN.findall(str(given))}


def _question(each: dict[str, Any], evidence: set[str]) -> Question:
    return Question(each["question"], frozenset(evidence), CATEGORIES[each["category"]])


def _docstrings() -> Corpus:
    texts: list[Text] = []
    questions: list[Question] = []
    seen: set[str] = set()
    for module, name, documented in _documented():
        head, _, body = inspect.cleandoc(documented).partition("\n\n")
        head, body = " ".join(head.split()), " ".join(body.split())[:600]
        if 20 <= len(head) <= 200 and len(body) >= 60 and body not in seen:
            seen.add(body)
            texts.append(Text(f"p{len(texts)}", f"{name}: {body}", module, module))
            questions.append(Question(head, frozenset({texts[-1].id}), "docstring"))
    return Corpus("python", texts, questions)


def _documented() -> Iterator[tuple[str, str, str]]:
    """Module, name and docstring of everything public."""
    for module_name in MODULES:
        with warnings.catch_warnings(action="ignore"):
            module = importlib.import_module(module_name)
            members = sorted(vars(module).items())
        for name, member in members:
            if name.startswith("_") or getattr(member, "__module__", None) != module_name:
                continue
            inner = vars(member).items() if inspect.isclass(member) else ()
            for full, each in [(name, member), *((f"{name}.{part}", value) for part, value in inner if part[0] != "_")]:
                documented = getattr(each, "__doc__", None)
                if isinstance(documented, str) and (callable(each) or isinstance(each, property)):
                    yield module_name, full, documented
