"""Find the final answer in a completion: boxes, tags, final statements, last lines.

Knows nothing of what the answer should be, nor whether it is right.
"""

import re
import unicodedata
from dataclasses import dataclass

from rloop.tasks.verifiers.latex import brace_end
from rloop.tasks.verifiers.units import read_unit

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_PHRASE = re.compile(r"\banswer\s*(?:\*\*)?\s*(?:is\b|:|=)\s*(?:\*\*)?:?|####", re.IGNORECASE)
_SUPERSCRIPT_DIGITS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_POWER = re.compile(rf"(?<=\d)[{_SUPERSCRIPT_DIGITS}]+")
_SUPERSCRIPTS = str.maketrans(_SUPERSCRIPT_DIGITS, "0123456789")
_MINUS_SIGNS = "\u2212\u2010\u2011\u2012\u2013\uff0d\ufe63"


def last_box(text: str) -> tuple[str | None, bool]:
    r"""Return the content of the last non-empty \boxed{} and whether the last box is closed.

    A last box that never closes hides the ones before it: the completion was still about to say
    something else, so the content is None. No box at all gives (None, True).
    """
    for match in reversed(list(_BOX.finditer(text))):
        end = brace_end(text, match.end())
        if end is None:
            return None, False
        content = text[match.end() : end]
        if content.strip():
            return content.strip(), True
    return None, True


def last_tag(text: str) -> str | None:
    """Return what stands between the last <answer> and </answer>, None where nothing does."""
    for content in reversed(_TAG.findall(text)):
        if content.strip():
            return str(content).strip()
    return None


def last_fence(text: str) -> str | None:
    """Return the content of the last fenced code block, None where there is none."""
    blocks = _FENCE.findall(text)
    return str(blocks[-1]).strip("\n") if blocks else None


def after_phrase(text: str, num_lines: int = 1) -> str | None:
    """Return the lines after the last "answer is", "answer:" or "####", None where nothing follows.

    Example: "The answer is 5.\\nBye" -> "5."
    """
    for match in reversed(list(_PHRASE.finditer(text))):
        lines = [line.strip() for line in text[match.end() :].strip().splitlines()]
        lines = [line for line in lines if line]
        if lines:
            return "\n".join(lines[:num_lines])
    return None


def last_lines(text: str, num_lines: int = 1) -> str:
    """Return the last lines of a text without the white space around them."""
    return "\n".join(text.strip().splitlines()[-num_lines:]).strip()


def final_statement(text: str) -> str:
    """Return what follows the last "answer is", "answer:" or "####"; else the last line."""
    return after_phrase(text) or last_lines(text)


def bare(text: str) -> str:
    """Strip quotes, emphasis, dollar signs and closing punctuation from around an answer.

    Example: '**"Paris".**' -> "Paris"
    """
    previous = None
    while previous != text:
        previous = text
        text = text.strip().strip("*`\"'$").rstrip(".,;:!").strip()
    return text


def with_ascii_numbers(text: str) -> str:
    """Replace decimal digits of other scripts and look-alike minus signs by their ASCII forms.

    Superscripts right behind a digit become powers, 8^2: neither 82 nor 8.
    """
    if text.isascii():
        return text
    text = _POWER.sub(lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    return "".join(char if char.isascii() else _ascii_number_char(char) for char in text)


def _ascii_number_char(char: str) -> str:
    if unicodedata.category(char) == "Nd":
        return str(unicodedata.decimal(char))
    return "-" if char in _MINUS_SIGNS else char


CLOSED_THOUGHT = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis)>"
    r"|\[/THINK\]|<\|end_of_thought\|>|<\|?/think\|?>|\u25c1/think\u25b7",
    re.IGNORECASE,
)
OPEN_THOUGHT = re.compile(
    r"<(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis)>"
    r"|\[THINK\]|<\|begin_of_thought\|>|<\|think\|>|\u25c1think\u25b7",
    re.IGNORECASE,
)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\d+|[A-Za-z])(?![A-Za-z])|(\\[A-Za-z]+))")
_END_TOKEN = re.compile(r"(?:<\|[a-z_]+\|>|</s>|<eos>|<end_of_turn>|\[EOS\])\s*$", re.IGNORECASE)
_PHRASE_ANSWER = re.compile(
    r"(?P<marker>####)|(?:\*\*|__)?\b(?:final\s+|correct\s+|right\s+)?(?:answer|result|solution)"
    r"(?:\s+(?:to|of|for)\s+(?:the|this)\s+\w+)?\s*(?:\*\*|__)?\s*"
    r"(?P<verb>\b(?:is|are|equals|should\s+be|must\s+be|will\s+be|would\s+be|comes\s+out\s+to"
    r"|was)\b|:|=)"
    r"(?:\*\*|__)?:?",
    re.IGNORECASE,
)
_NOT_NAMED = re.compile(
    r"(?:\b(?:if|whether|suppose|assume|assuming|say|unless|maybe|perhaps|possibly|not|never"
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
    r"\s*[(\[]\s*(?:not|rather\s+than|instead\s+of)\s[^()\[\]]*[)\]]|,\s*(?:and\s+)?not\s+[^,;]+$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait\b|scratch\s+that|on\s+second\s+thought|correction\b|oops|ignore\s+(?:that"
    r"|this|the\s+above)"
    r"|(?:that|this|which|it|the\s+above|the\s+answer\s+above)\s*(?:is|'s|was)\s+(?:wrong"
    r"|incorrect|false|not\s+(?:right|correct|true|the))"
    r"|(?:that|this|which|it)\s+(?:isn't|wasn't)\s+(?:right|correct|true|the)"
    r"|i\s+(?:made|have\s+made)\s+(?:a|an)\s+(?:mistake|error)|just\s+kidding|i\s+was\s+wrong)",
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
    r"\s*(?:[,;(]|\s-|\s\u2014|\u2013\s)?\s*\b(?:because|since|which|so\s+that|as\s+(?:we|the"
    r"|it|shown|required|desired)|where|for\s+(?:the|all|every|which)|and\s+(?:that|we|it"
    r"|this)|after|when|per\s+the|by\s+the)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=[*_\"')\]]*(?:\s+(?![a-z])|$))")
_MATH = re.compile(r"\$[^$]+\$|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL)
_NAMES = re.compile(
    r"^.*(?:(?<![A-Za-z])(?:is|are|was|were|equals?|gives?|gets?|becomes?|makes?|totals?"
    r"|obtain|have|be)(?![A-Za-z])|=|:|\u2192|\\implies|\\Rightarrow|=>)\s*(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_JOINT = re.compile(
    r"(?:\s|\$|\\[()\[\],;]|\\quad|\\qquad|\*\*|[,;&]|\\?text\{\s*(?:and|or)\s*\}|\b(?:and"
    r"|or)\b|\b(?:x|y|z|n|a|b|t|k|m)(?:_?\{?\d?\}?)\s*=)*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?:\s|\$|\\[()\[\]]|\*\*)*(?P<tail>(?:\\?text\{)?\s*(?:million|billion|thousand|hundred"
    r"|trillion|dozen|percent|\\?%|\^\S+|_\S+|!(?!\s)"
    r"|(?:or|and|to)\s+(?=[-\d$\\(])[^.\n]*|(?:\\times|\\cdot|\*|/|\+)\s*\d[^.\s]*)\}?)",
    re.IGNORECASE,
)
_UNIT_TAIL = re.compile(
    r"(?:\$|\\[)\]])?\s*((?:\\(?:text|mathrm)\{[^{}]*\}"
    r"|[A-Za-z]+(?:\s[a-z]+)?)(?:\^\{?\d\}?)?)\s*(?:\$|\\[)\]])?\s*(?:[.,;]|$|\n)"
)
_REFUSED = re.compile(
    r"(?:\bnot|n't|\bnever|\brather\s+than|\binstead\s+of|\\ne|\\neq|\u2260|!=)(?:\s+(?:be"
    r"|equal\s+to|the\s+answer|simply|just))*[\s$*:({\\]*$",
    re.IGNORECASE,
)
_BOXED_PHRASE = re.compile(
    r"^(\\(?:text|mbox|textbf|mathrm)\{)?\s*(?:so|thus|hence"
    r"|therefore)?,?\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is|:|=)\s*:?\s*",
    re.IGNORECASE,
)
_WRONG_TAIL = re.compile(
    r"[\s$*.)}\\]*\s*\(?(?:is|was|would\s+be|seems|looks)?\s*(?:not\b|n't|isn't|wasn't"
    r"|wrong\b|incorrect\b|false\b)",
    re.IGNORECASE,
)


Step = tuple[str, str]
"""What was done to judge an answer and what came out. Example: ("found (box)", "5 cm")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The final answer of a completion, as written.

    Example: Found(text="5 \\text{ cm}", source="box", others=()).
    """

    text: str
    source: str
    """`box`, `tag`, `statement` (it names the answer), `last line` or `whole text`."""
    others: tuple[str, ...] = ()
    """All boxes of the completion joined: the answer to a question of several parts, perhaps."""
    later: str | None = None
    """What a statement behind the box names as the answer."""
    is_hedged: bool = False
    """Whether it is negated, a bound or a guess: then it stands for its own words only."""


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    end: int
    text: str


def find_answer(text: str, question: str = "") -> tuple[Found | None, str]:
    r"""Return the final answer of a completion, or None and why there is none.

    Thoughts do not count. What is marked last wins: a \boxed{}, an <answer></answer>, or a
    statement that names the answer ("The answer is 5."), which must not be negated, a bound or
    taken back; then a last line that ends in "is 5" or "= 5", or a text that is nothing but a
    value. A completion that only repeats the question has no answer.
    """
    text, reason = without_thoughts(text)
    if reason:
        return None, reason
    while _END_TOKEN.search(text):
        text = _END_TOKEN.sub("", text)
    if not text.strip():
        return None, "an empty completion"
    if question and _is_echo(text, question, share=0.3):
        return None, "the completion repeats the question"
    boxes, unclosed = _boxes(text)
    if unclosed:
        return None, "the last \\boxed{} is not closed"
    if boxes:
        return _from_boxes(text, boxes, question)
    tags = [found for found in _TAG.finditer(text) if found[1].strip()]
    if tags:
        return _from_tag(text, tags[-1], question)
    return _from_statement(text, question)


def without_thoughts(text: str) -> tuple[str, str]:
    """Return what follows the last closed thought; a thought still open has no answer."""
    closed = [found.end() for found in CLOSED_THOUGHT.finditer(text)]
    rest = text[closed[-1] :] if closed else text
    if OPEN_THOUGHT.search(rest):
        return "", "it ends within its thoughts"
    return rest, ""


def _boxes(text: str) -> tuple[list[_Box], bool]:
    r"""Return the boxes with something in them, and whether the last \boxed{ never closes."""
    boxes: list[_Box] = []
    starts = sorted(
        [*_BOX.finditer(text), *_BARE_BOX.finditer(text)], key=lambda found: found.start()
    )
    unclosed = False
    for found in starts:
        if boxes and found.start() < boxes[-1].end:
            continue  # a box in a box
        if found.re is _BARE_BOX:
            boxes.append(_Box(found.start(), found.end(), found[1] or found[2]))
            unclosed = False
            continue
        end = brace_end(text, found.end())
        unclosed = end is None
        if end is not None and text[found.end() : end].strip():
            boxes.append(_Box(found.start(), end + 1, text[found.end() : end].strip()))
        if unclosed and len(boxes) > 50:
            break
    return boxes, unclosed


def _from_boxes(text: str, boxes: list[_Box], question: str) -> tuple[Found | None, str]:
    last = boxes[-1]
    group = [last]
    for box in reversed(boxes[:-1]):
        if not _JOINT.fullmatch(text[box.end : group[0].start]) or len(group) >= 12:
            break
        group.insert(0, box)
    before, after = text[: group[0].start], text[last.end :]
    if _REFUSED.search(before[-80:].rpartition("\n")[2]):
        return None, "the boxed answer is negated"
    if _WRONG_TAIL.match(after[:40]) or _TAKEN_BACK.search(after):
        return None, "the boxed answer is taken back"
    whole = ", ".join(dict.fromkeys(_BOXED_PHRASE.sub(r"\1", box.text) for box in group))
    whole = _with_sign(before) + whole + _tail(after)
    later = _later_statement(after)
    if later is not None:
        return Found(text=whole, source="box", later=later), ""
    everything = ", ".join(dict.fromkeys(box.text for box in boxes[-12:]))
    others = (everything,) if everything != whole and len(boxes) <= 12 else ()
    return Found(text=whole, source="box", others=others), ""


def _with_sign(before: str) -> str:
    """Return the minus sign that stands right before a box and belongs to it."""
    found = re.search(r"(?:^|[=:(,$\s])-\s*$", before[-20:])
    operand = re.search(r"[\w)}]\s*-\s*$", before[-20:])
    return "-" if found and not operand else ""


def _tail(after: str) -> str:
    """Return what stands right behind a box and changes its meaning: "million", "or 7", "km"."""
    found = _TAIL.match(after)
    if found:
        return " " + found["tail"]
    found = _UNIT_TAIL.match(after)
    unit = found[1] if found else ""
    return (
        f"\\text{{ {re.sub(chr(92) * 2 + '(?:text|mathrm)|[{}]', ' ', unit)} }}"
        if unit and _is_unit(unit)
        else ""
    )


def _is_unit(text: str) -> bool:
    return bool(read_unit(re.sub(r"\\(?:text|mathrm)|[{}]", " ", text)))


def _later_statement(after: str) -> str | None:
    """Return what a statement behind the last box names as the answer, None where there is none."""
    found, _ = _named(after)
    return found.text if found is not None and found.source == "statement" else None


def _from_tag(text: str, tag: re.Match[str], question: str) -> tuple[Found | None, str]:
    if _TAKEN_BACK.search(text[tag.end() :]):
        return None, "the answer is taken back"
    inner, reason = _from_statement(tag[1].strip(), question, is_marked=True)
    return (None, reason) if inner is None else (Found(text=inner.text, source="tag"), "")


def _from_statement(
    text: str, question: str, *, is_marked: bool = False
) -> tuple[Found | None, str]:
    found, reason = _named(text)
    if found is not None or reason:
        return found, reason
    whole = text.strip()
    if is_marked:
        return Found(text=_stated(whole), source="tag"), ""
    if len(whole.splitlines()) == 1 and not re.search(
        r"[A-Za-z]{3,}\s+[A-Za-z]{2,}\s+[A-Za-z]+", _masked(whole)
    ):
        if whole.endswith(("=", "?")):
            return None, "the completion ends without a statement"
        return Found(text=whole, source="whole text"), ""
    return _last_line(whole, question)


def _named(text: str) -> tuple[Found | None, str]:
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
        if _NOT_NAMED.search(sentence_head) and not found["marker"]:
            return None, "the statement does not name the answer"
        if _TAKEN_BACK.search(after):
            return None, "the answer is taken back"
        statement = _ASIDE.sub("", statement)
        is_hedged = _HEDGE.search(_masked(statement)) is not None
        stated = statement if is_hedged else _stated(statement)
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


def _stated(statement: str) -> str:
    """Return the value of a statement, without what leads to it or gives a reason behind it."""
    statement = _REASON.sub("", _LEAD.sub("", statement)).strip(" *_\t")
    formulas = re.findall(r"\$([^$]+)\$|\\\((.+?)\\\)", statement)
    outside = re.sub(r"\$[^$]+\$|\\\(.+?\\\)", " ", statement)
    if (
        len(formulas) == 1
        and len(re.findall("[A-Za-z]{2,}", outside)) > 2
        and statement.startswith(("$", "\\("))
    ):
        return str(formulas[0][0] or formulas[0][1])
    return statement


def _last_line(text: str, question: str) -> tuple[Found | None, str]:
    """Return the value that the last sentence of a text ends in, behind "is", "=" and the like."""
    display = re.search(r"(?:\\\[|\$\$)([^$]*?)(?:\\\]|\$\$)\s*$", text, re.DOTALL)
    line = display[1].strip() if display else last_lines(text)
    if line.endswith(("=", "?")):
        return None, "the completion ends without a statement"
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z$\\])", line)
    sentence = sentences[-1]
    if question and repeats(sentence, question):
        return None, "the last line repeats the question"
    if _HEDGE.search(_masked(sentence)) or _TAKEN_BACK.search(sentence):
        return None, "the last line is negated, a bound or a guess"
    if re.search(r"\banswer\b", sentence, re.IGNORECASE):
        return None, "the last line does not name the answer"
    if not re.search(r"[A-Za-z]{3,}\s+[A-Za-z]{2,}", _masked(sentence)):
        return Found(text=sentence, source="last line"), ""
    found = _NAMES.match(sentence)
    if found is None or re.search(
        r"\b(?:if|let|suppose|assume|where|given|consider|find)\b", sentence, re.IGNORECASE
    ):
        return None, "no statement names an answer"
    return Found(text=_stated(found[1]), source="last line"), ""


def _masked(text: str) -> str:
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
    return len(sentence.split()) > 3 and _is_echo(sentence, question)


def _is_echo(text: str, question: str, *, share: float = 0.0) -> bool:
    """Whether a text is (at least that share of) the question, but for white space and case."""
    said, asked = _flat(text), _flat(question)
    return len(said) > max(3.0, share * len(asked)) and said in asked


def _flat(text: str) -> str:
    return re.sub(r"[\s$\\*.]+", "", text).casefold()
