"""Extraction by rules: what is a statement, what is none, and what no text may do to it."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.memory.extraction.rules import propose
from memoturn_core.providers.language import Proposal, Turn
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.memory import BATCH_LIMIT, MemoryItem

STATED = [
    ("My name is Ann", "fact", "user.name", "The user's name is Ann"),
    ("My wife's name is Eva", "fact", "user.wife.name", "The user's wife's name is Eva"),
    ("My dog's name is Rex", "fact", None, "The user's dog's name is Rex"),
    ("I live in Oslo", "fact", "user.city", "The user lives in Oslo"),
    ("i live in new york", "fact", "user.city", "The user lives in new york"),
    ("I live in a small town", "fact", None, "The user lives in a small town"),
    ("I just moved to Ålesund", "fact", "user.city", "The user just moved to Ålesund"),
    ("I've recently moved to Rome", "fact", "user.city", "The user has recently moved to Rome"),
    ("I'm from Sweden", "fact", "user.origin", "The user is from Sweden"),
    ("I come from Sweden", "fact", "user.origin", "The user comes from Sweden"),
    ("I go by Sam", "fact", "user.name", "The user goes by Sam"),
    ("My birthday is March 3rd", "fact", "user.birthday", "The user's birthday is March 3rd"),
    ("I am 30 years old", "fact", "user.age", "The user is 30 years old"),
    ("I work as a nurse", "fact", "user.profession", "The user works as a nurse"),
    ("I work at Acme", "fact", "user.employer", "The user works at Acme"),
    ("I'm a software engineer", "fact", None, "The user is a software engineer"),
    ("I'm married", "fact", "user.marital_status", "The user is married"),
    ("I’m allergic to peanuts", "fact", "user.allergy.peanuts", "The user is allergic to peanuts"),
    ("I have two kids", "fact", None, "The user has two kids"),
    ("I like green tea", "fact", "user.preference.green_tea", "The user likes green tea"),
    ("I really love my job", "fact", "user.preference.job", "The user really loves their job"),
    ("I enjoy tea, coffee and milk", "fact", None, "The user enjoys tea, coffee and milk"),
    ("I hate Mondays", "fact", "user.preference.mondays", "The user hates Mondays"),
    ("I don't like green tea", "fact", "user.preference.green_tea", "The user doesn't like green tea"),
    ("I no longer like green tea", "fact", "user.preference.green_tea", "The user no longer likes green tea"),
    ("I can't eat nuts", "fact", "user.diet.nuts", "The user can't eat nuts"),
    ("My favorite color is blue", "fact", "user.favorite.color", "The user's favorite color is blue"),
    ("We decided to use Postgres", "fact", None, "The user and others decided to use Postgres"),
    ("I have an appointment with Dr. Lee on Friday", "event", None,
     "The user has an appointment with Dr. Lee on Friday"),
    ("I teach math", "fact", None, "The user teaches math"),
    ("I bought my first car", "event", None, "The user bought their first car"),
    ("Remind me to call Bob", "task", None, "The user asks: Remind me to call Bob"),
    ("I need to pay the rent by Friday", "task", None, "The user needs to pay the rent by Friday"),
    ("From now on, answer in French", "instruction", None, "The user asks: From now on, answer in French"),
    ("Never use emojis", "instruction", None, "The user asks: Never use emojis"),
    ("Call me Ishmael", "instruction", "user.form_of_address", "The user asks: Call me Ishmael"),
]  # fmt: skip

ANY = pytest.mark.parametrize("statement", [statement for statement, *_ in STATED])


def of(text: str, role: str = "user") -> list[Proposal]:
    return propose([Turn(role, text)])


def summaries(text: str, role: str = "user") -> list[str]:
    return [proposal.summary for proposal in of(text, role)]


@pytest.mark.parametrize(("statement", "type_", "topic", "summary"), STATED)
def test_a_statement_is_told_of_its_speaker(statement, type_, topic, summary):
    [proposal] = of(f"{statement}.")
    assert (proposal.type, proposal.topic_key, proposal.summary) == (type_, topic, summary)
    assert proposal.details == f"user: {statement}".replace("’", "'")


@ANY
@pytest.mark.parametrize(
    "doubt",
    [
        "{}?",
        "If {}, all is well.",
        "Maybe {}.",
        "She says {}.",
        "He told them that {}.",
        "{}, she said.",
        '"{}."',
        "“{}. And so on.”",
        "He shouted: '{}. That is it.'",
        "«{}»",
        "> {}",
        "```\n{}\n```",
        "Translate into French: {}.",
        "Rewrite this:\n{}.",
        "Imagine a man. {}.",
        "{} or maybe not.",
    ],
)
def test_what_is_asked_supposed_quoted_or_reported_is_no_statement(statement, doubt):
    assert of(doubt.format(statement)) == []


@pytest.mark.parametrize(
    "text",
    [
        "I don't live in Oslo.",
        "I never lived in Oslo.",
        "I'm not a vegetarian.",
        "I live in Oslo no more.",
        "I think I live in Oslo.",
        "I'd love to live in Oslo.",
        "I wish I lived in Oslo.",
        "My sister lives in Oslo.",
        "She likes tea.",
        "You live in Oslo.",
        "I like you.",
        "I don't like you.",
        "I love it!",
        "I love that.",
        "I'm engaged in politics.",
        "I'm single-handedly to blame.",
        "From now on I am careful.",
        "Call me when you get home.",
        "Never mind.",
        "Always good to see a friend.",
        "I live in",
        "I like ...",
        "",
        " \n\t ",
        "Ich wohne in Oslo.",
    ],
)
def test_what_says_no_or_nothing_by_itself_is_no_statement(text):
    assert of(text) == []


def test_one_sentence_may_state_several_things():
    assert summaries("Hey Tom! Well, my name is Ann and I live in Oslo, but I don't like the rain.") == [
        "The user's name is Ann",
        "The user lives in Oslo",
        "The user doesn't like the rain",
    ]


def test_a_quoted_title_belongs_to_what_is_stated():
    assert summaries('I love the book "Who am I?" by Precht.') == ['The user loves the book "Who am I?" by Precht']


def test_a_time_named_first_is_kept():
    assert summaries("Last week, I joined a choir.") == ["The user joined a choir, last week"]


def test_only_a_colon_that_ends_a_request_hands_a_text_over():
    assert summaries("I fix bikes until 10:30. I live in Oslo.") == ["The user lives in Oslo"]
    assert summaries("I live in Oslo. Please review this: I live in Rome. I like tea.") == ["The user lives in Oslo"]


def test_abbreviations_end_no_sentence():
    assert summaries("I have an appointment with Dr. Lee at 10.30 on Friday.") == [
        "The user has an appointment with Dr. Lee at 10.30 on Friday"
    ]


def test_speakers_are_told_apart():
    found = propose([Turn("Ann Lee", "I lost my job."), Turn("Bob", "I lost my job."), Turn("Ann Lee", "I like tea.")])
    assert [proposal.summary for proposal in found] == [
        "Ann Lee lost their job",
        "Bob lost their job",
        "Ann Lee likes tea",
    ]
    assert found[0].details != found[1].details
    assert found[2].topic_key == "ann_lee.preference.tea"


def test_no_two_speakers_share_a_topic_whatever_they_are_called():
    roles = ["Ann (mother)", "Ann (sister)", "🙂", "🦊", "A B C D E", "A B C D F", "Ann, Bob", "user", " "]
    found = propose([Turn(role, "I live in Oslo.") for role in roles])
    assert len({proposal.topic_key for proposal in found}) == len(roles)


@pytest.mark.parametrize("role", ["assistant", "System", "TOOL"])
def test_programs_state_nothing_of_themselves(role):
    assert of("I live in Oslo. I like tea.", role) == []


def test_of_two_statements_on_a_topic_the_later_one_is_proposed():
    assert summaries("I live in Oslo. I like tea. I moved to Rome. I hate tea. I like tea.") == [
        "The user moved to Rome",
        "The user likes tea",
    ]


def test_a_sentence_that_rambles_on_is_no_plain_statement():
    assert of(f"I live in {'very ' * 60}Oslo.") == []


def test_limits_are_errors_that_name_the_field():
    with pytest.raises(InvalidRequest, match=r"^turns: "):
        propose([Turn("user", "a" * (1 << 19)), Turn("user", "a" * ((1 << 19) + 1))])
    with pytest.raises(InvalidRequest, match=r"^turns: "):
        of("\n".join(f"I like number {number}." for number in range(BATCH_LIMIT + 1)))
    with pytest.raises(InvalidRequest, match=r"^turns\[1\]\.role: "):
        propose([Turn("user", "a"), Turn("a" * 201, "a")])


# --- any text ------------------------------------------------------------------------------------

FRAGMENTS = [
    *(re.sub(r"\b(Oslo|Ann|tea)$", "", statement) for statement, *_ in STATED),
    *(
        "I'm a ",
        "my goal ",
        "my dentist ",
        "we've ",
        "İ lıve ",
        "i uſe ",
        "I'M ",
        "ı like ",
        "Oslo",
        "mYself",
        "we",
        " ",
    ),
    *('"', "'", "“", "”", "«", "`", "> ", "```", "\n", "\r", "\u2028", "\0", "- ", "…", ".", "!", "?", ",", ":", ";"),
    *(
        " and I ",
        ", ",
        " - ",
        "Mr. ",
        "translate ",
        "a'a",
        " 'a",
        "....x",
        "yesterday, ",
        "so ",
        "oh, ",
        "\u0301",
        "🙂",
    ),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=30).map("".join)
ROLES = st.sampled_from(["user", "assistant", "Ann", "🙂", " ", "a\nb", "İ", "ß"]) | st.text(min_size=1, max_size=5)


@settings(max_examples=300)
@given(st.lists(st.builds(Turn, ROLES, TEXTS), max_size=4))
def test_whatever_is_proposed_can_be_kept_and_is_proposed_again(turns):
    proposals = propose(turns)
    for each in proposals:
        MemoryItem(type=each.type, topic_key=each.topic_key, summary=each.summary, content={"text": each.details})
        assert len(each.summary.splitlines()) == 1
    assert propose(turns) == proposals
    assert propose(turns + turns) == proposals


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join), st.sampled_from(FRAGMENTS))
def test_the_time_grows_with_the_text_and_no_faster(unit, ending):
    text = (unit * (1 + (1 << 17) // len(unit)))[: 1 << 17] + ending
    started = time.thread_time()
    with contextlib.suppress(InvalidRequest):
        of(text)
    assert time.thread_time() - started < 3
