"""The rules: by which phrase a clause begins decides which kind of memory it is, and on which topic.

A rule says how a clause begins; the rest of it is what is stated. The first rule that fits counts. Proposals depend on
the turns alone, and of two statements on one topic the later one is proposed, so that the same turns propose the same
memories and ingesting them again changes nothing. Called by `memoturn_core.memory.language`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from memoturn_core.memory.extraction.clauses import Clause, clauses
from memoturn_core.memory.extraction.retelling import ADVERBS, retold
from memoturn_core.providers.language import Proposal, Turn
from memoturn_core.providers.tasks import ProposalType
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.memory import BATCH_LIMIT

CHARACTERS_AT_MOST = 1 << 20
"""Characters of all turns together that are read at once."""

SPEAKER_AT_MOST = 200
"""Characters of a role."""

PROGRAMS = frozenset("assistant ai bot developer function model system tool".split())
"""Roles whose "I" is nobody to remember things about."""

_USERS = frozenset(("user", "human"))

# --- how clauses begin -----------------------------------------------------------------------------

_HOW = rf"(?:(?:{'|'.join(ADVERBS)}) ){{0,2}}"
_NAME = r" (?=(?-i:[^\W\d_a-z]))"
_PLACE = r" (?!(?:an?|the|my|our|this|that|these|those|here|there|with|for|and|to)\b)"
_SOME = r" (?:an?|some|one|two|three|four|five|six|\d{1,3}) (?!(?:lot|bit|few|feeling|question|idea|favou?r)\b)"
_DATED = r"(?=.*\b(?:today|tonight|tomorrow|on|at|by|before|next|this|until|\d+)\b)"


def _do(verbs: str, more: str = "") -> str:
    return rf"(?:i|we) {_HOW}(?:{verbs})\b{more}"


def _am(what: str, more: str = "") -> str:
    return rf"(?:i'?m|i am|we're|we are) {_HOW}(?:{what})\b{more}"


def _have(done: str, more: str = "") -> str:
    return rf"(?:i'?ve|i have|we've|we have) {_HOW}(?:{done})\b{more}"


def _my(what: str, more: str = "") -> str:
    return rf"(?:my|our) {_HOW}(?:{what}){more}\b"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a clause begins and what it then is."""

    type: ProposalType
    begins: str
    topic: str | None = None
    """Below the speaker's; `{on}` is what the group of this name matched, without one what is stated."""
    keywords: str = ""
    negative: bool = False
    """Whether such a clause may hold a negation, which makes others doubtful."""
    asks: bool = False
    """Whether it is a request: then it may hold a negation, and be about whoever is asked."""
    alone: bool = False
    """Whether it states something without anything more."""


_FAMILY = "wife|husband|spouse|partner|fiancee?|girlfriend|boyfriend|mother|mom|mum|father|dad|boss"
_OTHERS = "son|daughter|brother|sister|friend|dog|cat|puppy|kitten|pet|horse|colleague|neighbou?r|company|band|team"
_NAMED = r"(?:'s name is|'s name's| is called| is named)"
_PROFESSION = (
    "accountant|actor|actress|analyst|architect|artist|athlete|author|baker|barista|chef|coach|consultant|counsell?or"
    "|dancer|dentist|designer|developer|director|doctor|economist|editor|electrician|engineer|entrepreneur|farmer"
    "|firefighter|freelancer|journalist|lawyer|lecturer|librarian|manager|mechanic|musician|nurse|officer|painter"
    "|paramedic|pharmacist|photographer|physicist|pilot|plumber|producer|professor|programmer|psychologist|researcher"
    "|scientist|singer|student|surgeon|teacher|therapist|translator|vet|veterinarian|waiter|waitress|writer"
)
_HEALTH = "vegetarian|vegan|pescatarian|lactose intolerant|diabetic|c(?:o)?eliac|colou?r-?blind|left-handed|pregnant"
_STANDING = (
    r"passionate about|interested in|good at|afraid of|scared of|proud of|thankful for|grateful for|fascinated by"
    r"|obsessed with|hooked on|committed to|determined to|excited (?:to|about|for)|stoked (?:to|about|for)"
    r"|an? (?:\w+ ){0,2}(?:fan|lover|member|owner|volunteer|beginner)"
)
_APPOINTMENT = (
    r"(?:\w+ ){0,2}(?:appointment|interview|exam|flight|wedding|surgery|deadline|trip|party|graduation|meeting|concert"
    r"|competition|tournament|conference|presentation|audition|race)"
)
_DID = (
    "adopted|applied|attended|baked|began|booked|bought|built|came back|celebrated|completed|cooked|created|discovered"
    "|donated|ended up|enrolled|explored|finished|graduated|grew up|had an?|helped|hiked|hosted|hurt|injured|invited"
    "|joined|launched|lived|lost|met|moved|opened|ordered|organi[sz]ed|painted|participated|passed|performed|picked up"
    "|planned|planted|played|published|quit|raised|received|registered|scored|set up|signed|sold|spent|started|studied"
    "|switched to|talked to|taught|took|travell?ed|tried|used to|visited|volunteered|watched|went|won|worked|wrote"
    "|ran (?:an?|for|the|in)|read (?:an?|the)|saw (?:an?|the|my|our)|made (?:an?|my|our|some)|gave (?:an?|my|our)"
    "|found (?:an?|my|our|some)|learned (?:how|to|about)|shared (?:an?|my|our)|broke (?:my|up)|spoke (?:at|to)"
    "|got (?:an?|the|my|our|married|engaged|divorced|promoted|fired|hired|accepted|into|back from)"
)
_DONE = (
    r"been \w+ing|been to|bought|finished|found|got(?:ten)?|had|joined|learned|lost|made|met|seen|signed|started"
    "|visited|won|always wanted"
)
_DOING = (
    "attending|considering|creating|dating|developing|expecting|exploring|focusing on"
    r"|(?:going to|gonna)(?! (?:be|keep|make it|stay)\b)|going (?:on|for|back)"
    "|hoping to|hosting|launching|learning|making (?:an?|some)|opening|organi[sz]ing|painting|planning|playing"
    "|practi[cs]ing|preparing|reading|rehearsing|renovating|researching|running|saving|selling|starting|studying|taking"
    "|teaching|training|volunteering|writing|building|carving out|looking (?:into|forward to)"
    "|thinking (?:of|about)|working (?:on|at|for|as|with|in)"
)
_HABIT = (
    "believe in|cherish|collect|dream of|drive|hope to|intend|plan|play|practi[cs]e|study|teach|use|value|volunteer"
)
_SERVED = (
    "add|address|answer|ask|assume|avoid|book|call|check|cite|confirm|explain|follow|format|include|mention|order|provide"
    "|quote|recommend|refer|remind|reply|respond|run|send|show|speak|suggest|test|translate|use|write"
    "|be (?:brief|concise|direct|formal|honest|polite|precise|short)"
)

RULES = (
    # Who and where.
    Rule("fact", r"(?:my name is|my name's|i'm called|i am called|i go by|people call me)\b", "name", "called"),
    Rule("fact", _my(rf"(?P<on>{_FAMILY})", _NAMED), "{on}.name", "called"),
    Rule("fact", _my(_OTHERS, _NAMED), None, "called"),
    Rule("fact", _do("live in|reside in", _PLACE), "city", "home residence"),
    Rule("fact", _do("moved to|relocated to", _NAME), "city", "home lives residence"),
    Rule("fact", _have("moved to|relocated to", _NAME), "city", "home lives residence"),
    Rule("fact", _do("live (?:at|by|close to|in|near|next to|on|with)"), None, "home"),
    Rule("fact", _am("from|originally from", _NAME), "origin", "home"),
    Rule("fact", _do("come from", _NAME), "origin", "home"),
    Rule("fact", _do("was born on"), "birthday", "birth date"),
    Rule("fact", _do("was born in|was raised in|grew up in"), None, "origin childhood"),
    Rule("fact", _my("birthday is|birthday's|date of birth is"), "birthday", "birth born date"),
    Rule("fact", _my("anniversary is|wedding anniversary is"), "anniversary", "married date"),
    Rule("fact", _am(r"\d{1,3} years old|\d{1,3} years of age"), "age", "old", alone=True),
    Rule("fact", _my(r"(?P<on>email|phone number|address|time ?zone) is"), "{on}", "contact"),
    Rule("fact", _do("work as"), "profession", "job"),
    Rule("fact", _do("work at|work for"), "employer", "job company"),
    Rule("fact", _do("work in"), None, "job"),
    Rule("fact", _my("profession is|occupation is"), "profession", "job work"),
    Rule("fact", _am(rf"an? (?:\w+ ){{0,3}}(?:{_PROFESSION})"), None, "job work profession", alone=True),
    Rule(
        "fact",
        _am("married|single|divorced|engaged|widowed", r"(?= to\b|[.!,]|$)"),
        "marital_status",
        "relationship",
        alone=True,
    ),
    Rule("fact", _am("retired|unemployed|self-employed"), None, "job work", alone=True),
    Rule("fact", _am(rf"(?:an? )?(?:{_HEALTH})"), None, "diet health", alone=True),
    Rule("fact", _am("allergic to"), "allergy.{on}", "allergies"),
    Rule("fact", _do("speak", _NAME), None, "languages"),
    Rule("event", _do(rf"have an? {_APPOINTMENT}", _DATED), None, "date", alone=True),
    Rule("event", _my(_APPOINTMENT, rf" (?:is|starts|was){_DATED}"), None, "date"),
    Rule("fact", _do("have|own", _SOME)),
    Rule("fact", _have("got", _SOME)),
    # What they like.
    Rule("fact", _do("like|love|prefer|enjoy|adore|hate|dislike"), "preference.{on}", "preference"),
    Rule(
        "fact",
        _do("don'?t like|do not like|can'?t stand|no longer like|don'?t enjoy"),
        "preference.{on}",
        "preference dislikes",
        negative=True,
    ),
    Rule("fact", r"i (?:don'?t|do not|can'?t|cannot) (?:eat|drink)\b", "diet.{on}", "preference", negative=True),
    Rule(
        "fact",
        _my(r"favou?rite (?!(?:thing|part|one)s?\b)(?P<on>\w+(?: \w+){0,2}?) (?:is|are)"),
        "favorite.{on}",
        "preference likes",
    ),
    Rule("fact", _am(_STANDING), None, "interest", alone=True),
    Rule("fact", _my(r"(?:goal|dream|plan|passion|hobby)(?: \w+){0,5}? is"), None, "goal plan"),
    # What they decided, did, are about to do.
    Rule("fact", _do("decided|chose|settled on|agreed (?:to|on|that)"), None, "decision"),
    Rule("fact", _have("decided|chosen|settled on|agreed (?:to|on|that)"), None, "decision"),
    Rule("fact", _am("going with|switching to"), None, "decision"),
    Rule("task", _do("need to|have to|must", rf"(?! (?:admit|agree|confess|say)\b){_DATED}"), None, "to do"),
    Rule("fact", _do(_HABIT)),
    Rule("event", _do(_DID)),
    Rule("event", _have(_DONE)),
    Rule("fact", _am(_DOING), None, "currently"),
    # What they ask for.
    Rule("instruction", rf"call me{_NAME}", "form_of_address", "name"),
    Rule(
        "instruction",
        r"(?:from now on|in future|in the future|going forward)\b,?(?! (?:i|i'?m|we|my|our|it|things|there)\b)",
        asks=True,
    ),
    Rule("instruction", rf"(?:always|never|do not ever|don'?t ever) (?:{_SERVED})\b", asks=True),
    Rule("instruction", r"(?:i want you to|i'd like you to) (?:always|never)\b", asks=True),
    Rule(
        "task",
        r"(?:remind me|don'?t let me forget|help me remember) (?:to|about|that)\b",
        None,
        "reminder",
        asks=True,
    ),
)


@cache
def _begins() -> re.Pattern[str]:
    """All rules as one expression; compiled when it is first needed, for that takes a tenth of a second."""
    rules = (f"(?P<rule{n}>{rule.begins.replace('<on>', f'<on{n}>')})" for n, rule in enumerate(RULES))
    return re.compile("|".join(rules), re.IGNORECASE)


_NEGATION = re.compile(r"\b(?:not|no|never|nothing|nobody|none|neither|without|hardly)\b|n't\b", re.IGNORECASE)
_YOU = re.compile(r"\b(?:you|your|yours|yourself|u|ya|y'all)\b", re.IGNORECASE)
# Said of what only the conversation knows.
_POINTING = re.compile(
    r"(?:that|this|these|its|he|her|she|they|here|so|how|what|when|where|why|who|one)\b"
    r"|(?:[\w'-]+ ){0,2}(?:it|him|them|those|ones|there)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?: (?:too|as well|so much|very much|a lot|now|though|again|also|these days|right now|anymore))$")
_ARTICLE = re.compile(r"^(?:an?|the|my|our|some|to) ")
_SEVERAL = re.compile("[,;:(\u2013\u2014]| - | but | because ")
_TOPIC_WORDS = 4


@dataclass(frozen=True, slots=True)
class Statement:
    """What a rule found, and the place of its turn."""

    turn: int
    proposal: Proposal


def propose(turns: Sequence[Turn]) -> list[Proposal]:
    """The memories that the turns state explicitly, in the order in which they last do.

    Raises `InvalidRequest` for more text than is read at once or more statements than are kept at once.
    """
    return [statement.proposal for statement in statements(turns)]


def statements(turns: Sequence[Turn]) -> list[Statement]:
    """As `propose`, with the turns."""
    if sum(len(turn.content) for turn in turns) > CHARACTERS_AT_MOST:
        raise InvalidRequest(
            f"turns: the rules read at most {CHARACTERS_AT_MOST} characters at once; send them in parts"
        )
    latest: dict[tuple[str, str, bool], Statement] = {}
    for place, turn in enumerate(turns):
        if len(turn.role) > SPEAKER_AT_MOST:
            raise InvalidRequest(f"turns[{place}].role: must be at most {SPEAKER_AT_MOST} characters for the rules")
        for proposal in _stated(turn):
            about = (proposal.type, proposal.topic_key or proposal.details, proposal.topic_key is None)
            latest.pop(about, None)
            latest[about] = Statement(place, proposal)
        if len(latest) > BATCH_LIMIT:
            raise InvalidRequest(
                f"turns: state more than {BATCH_LIMIT} memories, which are kept at once; send them in parts"
            )
    return list(latest.values())


def _stated(turn: Turn) -> Iterator[Proposal]:
    speaker = " ".join(turn.role.split()) or "Somebody"
    if speaker.casefold() in PROGRAMS:
        return
    for clause in clauses(turn.content):
        proposal = _proposal(clause, speaker)
        if proposal is not None:
            yield proposal


def _proposal(clause: Clause, speaker: str) -> Proposal | None:
    begun = _begins().match(clause.text)
    if begun is None:
        return None
    number = int(str(begun.lastgroup).removeprefix("rule"))
    rule = RULES[number]
    said = clause.text.rstrip(" .!\u2026,;:-\u2013\u2014\u3002\uff01")
    stated = said[begun.end() :].strip()
    if (not any(map(str.isalnum, stated)) and not rule.alone) or _POINTING.match(stated):
        return None
    if not rule.asks and (_YOU.search(said) or (not rule.negative and _NEGATION.search(said))):
        return None
    user = speaker.casefold() in _USERS
    topic = None
    if rule.topic is not None:
        on = _object(begun[f"on{number}"] if "<on>" in rule.begins else stated)
        if on or "{on}" not in rule.topic:
            topic = f"{'user' if user else _slug(speaker) or speaker}.{rule.topic.format(on=on)}"
    when = f", {clause.when}" if clause.when else ""
    summary = retold(said, "The user" if user else speaker)
    return Proposal(rule.type, topic, f"{summary}{when}", f"{speaker}: {said}{when}", rule.keywords)


def _object(stated: str) -> str:
    """What a topic is about; empty for a list, and for so many words that they are hardly said again."""
    slug = _slug(_ARTICLE.sub("", _ASIDE.sub("", stated.casefold())))
    return "" if _SEVERAL.search(stated) or slug.count("_") >= _TOPIC_WORDS else slug


def _slug(name: str) -> str:
    return "_".join(re.findall(r"[^\W_]+", name.casefold()))
