"""Words that a stemmer does not bring together: irregular verbs and plurals of English.

A question says "did she go", and what it asks for says "went". Called by `memoturn_core.memory.text`.
"""

from __future__ import annotations

GROUPS: tuple[tuple[str, ...], ...] = tuple(
    tuple(group.split())
    for group in """
    awake awoke awoken|bear bore borne|beat beaten|become became|begin began begun|bend bent|bite bit bitten
    |blow blew blown|break broke broken|bring brought|build built|burn burnt|buy bought|catch caught
    |choose chose chosen|come came|creep crept|deal dealt|dig dug|draw drew drawn|dream dreamt|drink drank drunk
    |drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found|fly flew flown
    |forget forgot forgotten|forgive forgave forgiven|freeze froze frozen|get got gotten|give gave given|go went gone
    |grow grew grown|hang hung|hear heard|hide hid hidden|hold held|keep kept|know knew known|lay laid|lead led
    |learn learnt|leave left|lend lent|lie lain|light lit|lose lost|make made|mean meant|meet met|pay paid
    |ride rode ridden|ring rang rung|rise rose risen|run ran|say said|see saw seen|seek sought|sell sold|send sent
    |sew sewn|shake shook shaken|shine shone|shoot shot|show shown|sing sang sung|sink sank sunk|sit sat|sleep slept
    |slide slid|speak spoke spoken|spend spent|spin spun|stand stood|steal stole stolen|stick stuck|sting stung
    |strike struck|swear swore sworn|sweep swept|swim swam swum|swing swung|take took taken|teach taught
    |tear tore torn|tell told|think thought|throw threw thrown|understand understood|wake woke woken|wear wore worn
    |weave wove woven|weep wept|win won|write wrote written
    |child children|man men|woman women|foot feet|tooth teeth|mouse mice|person people|wife wives|life lives
    |good better best|bad worse worst|far further farther
    """.replace("\n", " ").split("|")
)
