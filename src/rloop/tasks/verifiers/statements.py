"""What a text states: the answer that a sentence names, the value that a last line ends in.

Knows nothing of what the answer should be. A statement must not be negated, a bound, a guess, or
taken back by what follows it.
"""

import re
from dataclasses import dataclass

from rloop.tasks.verifiers.units import CHANGES, FACTORS


def last_lines(text: str, num_lines: int = 1) -> str:
    """Return the last lines of a text without the white space around them."""
    return "\n".join(text.strip().splitlines()[-num_lines:]).strip()


_PHRASE_ANSWER = re.compile(
    r"(?P<marker>####(?!\s*[A-Za-z]{2,})|\*\*\s*final\s+answer\s*:?\s*\*\*\s*:?\s*\n"
    r"|^#+\s*final\s+answer\s*:?\s*\n)|(?:\*\*|__)?\b(?:final\s+|correct\s+"
    r"|right\s+)?(?:answer|result|solution)"
    r"(?:\s+(?:to|of|for)\s+(?:the|this)\s+\w+)?\s*(?:\*\*|__)?\s*"
    r"(?P<verb>\b(?:is|are|equals|should\s+(?:be|have\s+been)|must\s+be|will\s+be|would\s+be"
    r"|comes\s+out\s+to"
    r"|was)\b|:|=)"
    r"(?:\*\*|__)?:?",
    re.IGNORECASE,
)
_NOT_NAMED = re.compile(
    r"(?:\b(?:if|whether|whose|suppose|assume|assuming|say|unless|maybe|perhaps|possibly|not|never"
    r"|no|wrong|incorrect|false"
    r"|bad|naive|first|initial|previous|old|other|another|common|estimated|my\s+guess|doubt"
    r"|unsure|sure"
    r"|guess|claim|claims|claimed|imagine)\b|n't\b)[^.!?\n]{0,25}$|\bof\s+(?:the\s+|this\s+"
    r"|my\s+)?$",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:not|never|neither|nor|cannot|at\s+least|at\s+most|more\s+than|less\s+than|fewer\s+than"
    r"|greater\s+than|larger\s+than|smaller\s+than|bigger\s+than|no\s+more|up\s+to|over|under"
    r"|above|below"
    r"|between|almost|nearly|anything|any|unknown|undetermined|maybe|perhaps|possibly|might"
    r"|could|may\s+be"
    r"|except|unless|instead\s+of|rather\s+than|far\s+from|close\s+to|different\s+from"
    r"|other\s+than|if)\b|n't\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\s*[(\[]\s*(?:not|rather\s+than|instead\s+of)\s[^()\[\]]*[)\]]|(?:,\s*(?:and\s+)?"
    r"|\s+and\s+)not\s+[^,;]+$"
    r"|^\s*not\s+[^,]+?,?\s+but\s+(?:rather\s+)?",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?\n*]\s*)(?:but\s+|oh\s+|hmm,?\s+)?(?:wait\b|no[,.!]|actually\b"
    r"|alternatively\b)|\bwait[,!.]"
    r"|\bsorry\b|scratch\s+that|on\s+second\s+thought|\bcorrection\s*:|\boops"
    r"|ignore\s+(?:that|this|the\s+above)"
    r"|\b(?:that|this|which|it|the\s+above|the\s+answer\s+above)\s*(?:is|'s|was)\s+"
    r"(?:wrong|incorrect|false|not\s+(?:right|correct|true|the))"
    r"|\b(?:that|this|which|it)\s+(?:isn't|wasn't)\s+(?:right|correct|true|the)"
    r"|\bi\s+(?:made|have\s+made)\s+(?:a|an)\s+(?:mistake|error)|just\s+kidding|\bi\s+was\s+wrong",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^(?:\s|:|therefore|thus|so|hence|simply|just|exactly|precisely|approximately|about"
    r"|roughly|around|equal\s+to|given\s+by"
    r"|clearly|obviously|indeed|now|then|also|either|option|choice|\\approx|\u2248"
    r"|the\s+(?:number|value|letter|option|choice)(?:\s+of)?(?=\W))+",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\s*(?:[,;(]|\s-|\s\u2014|\u2013\s)?\s*\b(?:because|since|so\s+that|which(?!.*(?:doubl"
    r"|halv|tripl|must|should))"
    r"|as\s+(?:we|the|it|shown|required|desired))\b.*$",
    re.IGNORECASE | re.DOTALL,
)
_RIDER = re.compile(
    r"\s*,?\s*\b(?:where|for\s+(?:the|all|every|which)|and\s+(?:that|we|it|this)|after|when"
    r"|per\s+the"
    r"|by\s+the)\b(?!.*(?:\d|doubl|halv|tripl|squar|adding|add\b|subtract|minus|plus|round"
    r"|divid|multipl)).*$",
    re.IGNORECASE | re.DOTALL,
)
_REMARK = re.compile(r"^([$\\]*-?[\d.,]+%?\$?(?:\s+[A-Za-z]+){0,3})\s+[(\[][^()\[\]]*[)\]]\s*$")
"""A number with a calculation behind it in brackets: 18 eggs (9 + 9)."""
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=[*_\"')\]]*(?:\s+(?![a-z])|$))")
_MATH = re.compile(r"\$[^$]{1,400}\$|\\\(.{0,400}?\\\)|\\\[.{0,400}?\\\]", re.DOTALL)
_VERB = re.compile(
    r"^.*(?<![A-Za-z])(?:is|are|was|were|equals?|gives?|gets?|becomes?|makes?|totals?|obtain"
    r"|have|be)"
    r"(?:\s+equal\s+to)?(?![A-Za-z]):?\s+(?=[^A-Za-z]*(?:[\d$\\-]|[A-Za-z]{1,2}\b))(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_EQUATION = re.compile(
    r"(?:(?<![A-Za-z])[A-Za-z]{1,2}(?![A-Za-z])|[\d.,+*/^(){}\\ $-]|\\[A-Za-z]+)*=[^=]+(?:=[^=]+)*$"
    r"|(?<!\d):\s+[^:]+$"
)
_OF_SOMETHING = re.compile(
    r"\b(?:if|let|suppose|assume|where|given|consider|find|wrong|incorrect|false|mistake"
    r"|error|doubt|guess"
    r"|whether|while|whereas|nobody)\b"
    r"|\b(?:half|third|quarter|double|twice|triple|opposite|reciprocal|inverse|negative"
    r"|complement|part"
    r"|most|some|one|none|each)\s+of\b|\b(?:unlikely|impossible|improbable)\b"
    r"|\b(?:first|second|last|larger|smaller|other)\s+of\b|\b(?:number|value|it)\s+(?:minus|plus|times)\b"
    r"|\b(?:twice|double|triple|half|\w+\s+times)\s+(?:the|a|this|that)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The final answer of a completion, as written.

    Example: Found(text="5 \\text{ cm}", source="box").
    """

    text: str
    source: str
    """`box`, `tag`, `statement` (it names the answer), `last line` or `whole text`."""
    later: str | None = None
    """What is named as the answer behind the box, perhaps another one."""
    is_hedged: bool = False
    """Whether it is negated, a bound or a guess: then it stands for its own words only."""


def is_taken_back(rest: str) -> bool:
    """Whether what follows an answer takes it back, or offers another one."""
    return (
        _TAKEN_BACK.search(rest) is not None
        or re.match(
            r"[\s$.)}*\\]*\n?\s*(?:[Oo]r|and|alternatively,?)\s+(?:maybe\s+|perhaps\s+"
            r"|it\s+is\s+)?[-\d$\\]",
            rest,
        )
        is not None
    )


def named_answer(text: str) -> tuple[Found | None, str]:
    """Return the answer that the last "answer is" of a text names."""
    for found in reversed(list(_PHRASE_ANSWER.finditer(text))):
        rest = text[found.end() :]
        if not rest.strip(" \t\n*_:$"):
            continue
        head = text[: found.start()]
        sentence_head = re.split(r"[.!?]\s|\n", head)[-1]
        statement = _first_sentence(rest)
        if statement is None:
            return None, "the statement is a question"
        after = rest[rest.find(statement) + len(statement) :] if statement in rest else ""
        if re.search(r"\bor\s*$", head) or (
            _NOT_NAMED.search(sentence_head) and not found["marker"]
        ):
            return None, "the statement does not name the answer"
        if is_taken_back(after):
            return None, "the answer is taken back"
        statement = _REASON.sub("", _ASIDE.sub("", statement))
        is_hedged = _HEDGE.search(masked(statement)) is not None
        stated = statement if is_hedged else stated_value(statement)
        return Found(text=stated, source="statement", is_hedged=is_hedged), ""
    return None, ""


def _first_sentence(text: str) -> str | None:
    """Return the sentence or displayed formula that a text begins with, None for a question."""
    text = text.lstrip(" \t:*_")
    display = re.match(r"\s*(?:\\\[|\$\$)(.*?)(?:\\\]|\$\$)", text, re.DOTALL)
    if display and not text[: display.start(1)].strip(" \n\\[$"):
        return display[1].strip()
    block = re.match(r"\s*\\begin\{(\w+\*?)\}.*?\\end\{\1\}", text, re.DOTALL)
    if block:
        return block[0].strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[0].strip()
    formulas = [(found.start(), found.end()) for found in _MATH.finditer(line)]
    ends = _SENTENCE_END.finditer(line)
    end = next((e for e in ends if not any(a <= e.start() < b for a, b in formulas)), None)
    if end is not None:
        if line[end.start()] == "?":
            return None
        line = line[: end.start() + (line[end.start()] == "!")]
    return line


def stated_value(statement: str) -> str:
    """Return the value of a statement, without what leads to it or gives a reason behind it."""
    statement = _RIDER.sub("", _REASON.sub("", _LEAD.sub("", statement))).strip(" *_\t")
    statement = _REMARK.sub(r"\1", statement)
    formulas = re.findall(r"\$([^$]+)\$|\\\((.+?)\\\)", statement)
    outside = re.sub(r"\$[^$]+\$|\\\(.+?\\\)", " ", statement)
    said = re.findall("[a-z]{2,}", outside.casefold())
    is_alone = len(formulas) == 1 and len(said) > 2 and statement.startswith(("$", "\\("))
    if is_alone and not {*CHANGES, *FACTORS, "times", "and", "out", "per"}.intersection(said):
        return str(formulas[0][0] or formulas[0][1])
    return statement


def last_line(text: str, question: str) -> tuple[Found | None, str]:
    """Return the value that the last sentence of a text ends in, behind "is", "=" and the like."""
    display = re.search(r"(?:\\\[|\$\$)([^$]{0,400}?)(?:\\\]|\$\$)\s*$", text[-500:], re.DOTALL)
    line = display[1].strip() if display else last_lines(text)
    if line.endswith(("=", "?")):
        return None, "the completion ends without a statement"
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z$\\])", line)
    sentence = sentences[-1]
    if question and repeats(sentence, question):
        return None, "the last line repeats the question"
    if _HEDGE.search(masked(sentence)) or _TAKEN_BACK.search(sentence):
        return None, "the last line is negated, a bound or a guess"
    if re.search(r"\banswer\b", sentence, re.IGNORECASE):
        return None, "the last line does not name the answer"
    if not re.search(r"(?<![A-Za-z])[A-Za-z]{3,}\s+[A-Za-z]{2,}", masked(sentence)):
        return Found(text=sentence, source="last line"), ""
    if _OF_SOMETHING.search(sentence):
        return None, "no statement names an answer"
    stated = _named_value(sentence)
    if stated is not None and re.search(r"\bor\b", sentence) and not re.search(r"\bor\b", stated):
        return None, "the last line names several values"
    return (
        (None, "no statement names an answer")
        if stated is None
        else (
            Found(text=stated, source="last line"),
            "",
        )
    )


def _named_value(sentence: str) -> str | None:
    """Return what a sentence ends in behind "is", "are" and the like, else its equation."""
    found = _VERB.match(sentence)
    if found is not None:
        return stated_value(found[1])
    found = _EQUATION.search(sentence)
    return None if found is None else stated_value(found[0])


def masked(text: str) -> str:
    """Blank formulas and commands, to look at the words of a sentence alone."""
    return re.sub(r"\\[A-Za-z]+", " ", _MATH.sub(" ", text))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, line by line."""
    return [
        sentence
        for line in text.splitlines()
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z$\\*\"'])", line)
        if sentence.strip()
    ]


def repeats(sentence: str, question: str) -> bool:
    """Whether a sentence of at least four words stands in the question."""
    return len(sentence.split()) > 3 and is_echo(sentence, question)


def is_echo(text: str, question: str, *, share: float = 0.0) -> bool:
    """Whether a text is (at least that share of) the question, but for white space and case."""
    said, asked = _flat(text), _flat(question)
    return len(said) > max(3.0, share * len(asked)) and said in asked


def _flat(text: str) -> str:
    return re.sub(r"[\s$\\*.]+", "", text).casefold()
