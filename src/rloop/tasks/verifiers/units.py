r"""Units of measure, currencies and counted things behind a number: 5\text{ cm}, 12 apples, $5.

A unit may be left out of an answer; it may never be another one. Only known words are units: those
of the tables below, and words of the question. Words that change the number (million, dozen, half)
are factors, and words that change the statement (or, not, more) make it no quantity at all.
"""

import re
from collections.abc import Collection
from fractions import Fraction

from rloop.tasks.verifiers.latex import WORDS_CLOSE, WORDS_OPEN

FACTORS = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
    "trillion": 10**12, "hundreds": 100, "thousands": 10**3, "millions": 10**6,
    "billions": 10**9, "trillions": 10**12,
}  # fmt: skip
"""Words behind a number that multiply it."""

_MEASURES = {
    "m": "m meter meters metre metres", "km": "km kms kilometer kilometers kilometre kilometres",
    "cm": "cm cms centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "um": "um micron microns micrometer micrometers", "nm": "nm nanometer nanometers",
    "inch": "in inch inches", "foot": "ft foot feet", "yard": "yd yds yard yards",
    "mile": "mi mile miles", "ly": "ly lightyear lightyears", "au": "au AU",
    "pc": "pc parsec parsecs", "angstrom": "angstrom angstroms Angstrom Angstroms",
    "g": "g gm gram grams gramme grammes", "kg": "kg kgs kilo kilos kilogram kilograms",
    "mg": "mg milligram milligrams", "ton": "t ton tons tonne tonnes",
    "ounce": "oz ounce ounces", "pound": "lb lbs pound pounds", "stone": "stone stones",
    "s": "s sec secs second seconds", "ms": "ms millisecond milliseconds",
    "minute": "min mins minute minutes", "hour": "h hr hrs hour hours", "day": "day days",
    "week": "week weeks", "month": "month months", "year": "yr yrs year years",
    "decade": "decade decades", "century": "century centuries",
    "l": "l L liter liters litre litres",
    "ml": "ml mL milliliter milliliters millilitre millilitres", "gallon": "gal gallon gallons",
    "quart": "qt quart quarts", "pint": "pint pints", "cup": "cup cups",
    "tbsp": "tbsp tablespoon tablespoons", "tsp": "tsp teaspoon teaspoons", "acre": "acre acres",
    "hectare": "ha hectare hectares", "degree": "degree degrees deg",
    "radian": "rad radian radians", "celsius": "C celsius Celsius",
    "fahrenheit": "F fahrenheit Fahrenheit", "kelvin": "K kelvin Kelvin kelvins",
    "hertz": "Hz hertz Hertz", "newton": "N newton newtons Newton",
    "joule": "J joule joules Joules Joule", "kj": "kJ kilojoule kilojoules", "erg": "erg ergs",
    "watt": "W watt watts Watts", "kw": "kW kilowatt kilowatts", "volt": "V volt volts Volts",
    "ampere": "A amp amps ampere amperes", "ohm": "ohm ohms", "coulomb": "coulomb coulombs",
    "pascal": "Pa pascal pascals", "atm": "atm atmosphere atmospheres",
    "ev": "eV electronvolt electronvolts", "mol": "mol mole moles", "tesla": "tesla teslas",
    "byte": "B byte bytes", "kb": "KB kB kilobyte kilobytes", "mb": "MB megabyte megabytes",
    "gb": "GB gigabyte gigabytes", "bit": "bit bits", "calorie": "cal calorie calories",
    "mph": "mph", "kmh": "kph kmh", "unit": "unit units", "rpm": "rpm",
    "dollar": "usd USD dollar dollars bucks", "cent": "cent cents", "euro": "eur EUR euro euros",
    "gbp": "gbp GBP", "penny": "penny pence", "jpy": "jpy JPY yen",
    "inr": "inr INR rupee rupees",
}  # fmt: skip
_COUNTED = frozenset(
    """
    acorn action adult animal answer ant apartment app apple arrangement baby bag bagel bale ball
    balloon banana bar barrel basket batch bead bear bed bee berry bicycle bike bill bird biscuit
    block boat book bottle bottlecap bouquet bowl box boy bracelet brick brownie bucket building
    bulb bunny bus bush button cake camper can candle candy car card carrot carton case cat cell
    chair chapter cherry chicken child chip chocolate choice cigar circle class classroom clip
    coin color colour combination cookie copy coupon cow crab cracker crate crayon cube cupcake
    customer cycle daisy deck deer desk diagonal digit dime dog doll dolphin donut doughnut dress
    drink drum duck edge egg element email employee envelope episode eraser event face factor
    family fan file fish flower fold fork friend frog fruit function game gift girl glass glove
    goal goat goldfish goose grade grape group guest guy hamburger hand hat hole horse hotdog
    house ice-cream integer item jar jelly jellybean jersey job juice key kid kilowatt kitten
    knife lady ladybug lamp lap lawn leaf lemon letter line loaf lollipop magazine man mango
    marble mark marker match meal member message model monkey mouse movie muffin mug mushroom nail
    necklace newspaper nickel note notebook number object onion option orange orchid order
    ornament outcome outfit pack package packet page painting pair pan pancake paper parent part
    partition passenger pastry path peach peanut pear pebble pen pencil people permutation person
    petal photo picture pie piece pig pile pill pitcher pizza plane plant plate player plum point
    polygon pond pool poster pot potato present prime problem program pumpkin pupil puppy quarter
    question quilt rabbit raffle ride ring rise roll room root rose round row sack sandwich
    seashell seat section seed segment sequence serving set shape sheep sheet shelf shell shirt
    shoe sibling side slice sock soda solution song space spider spoon spot square squirrel stack
    stamp star step stick sticker story straw strawberry string student subset suit sum sunflower
    sweater sweet swimmer t-shirt table tank tape teacher team term ticket tie tile time tomato
    tooth toothpick toy train tray tree triangle triangular trip truck tube tulip turn turtle
    value vase vegetable vehicle vertex visitor vote walnut watermelon way whale wheel window
    winner woman word worker worm yoghurt zebra zero
    """.split()  # noqa: SIM905
)
_IRREGULAR = {
    "children": "child", "people": "person", "men": "man", "women": "woman", "leaves": "leaf",
    "loaves": "loaf", "knives": "knife", "shelves": "shelf", "teeth": "tooth", "mice": "mouse",
    "geese": "goose", "vertices": "vertex", "indices": "index", "lives": "life", "halves": "half",
}  # fmt: skip
_FILLERS = frozenset(
    (  # noqa: SIM905
        "of the a an in total altogether all left remaining each apiece whole full exactly only "
        "different distinct possible such"
    ).split()
)
"""Words that may stand with a unit and say nothing about the number."""

CHANGES = frozenset(
    """
    or and not no nor never neither either any more less fewer least most than over under above
    below between up to from except without if unless when about around almost nearly half halves
    score gross couple third thirds fourth tenth tenths hundredths double twice triple squared
    cubed factorial
    plus minus divided modulo mod percent even odd maybe perhaps possibly probably
    undefined infinite infinity negative pi root hundredth thousandth first nth
    else other another but instead rather also too wrong incorrect false true yes is are was were be
    """.split()  # noqa: SIM905
)
"""Words that make a phrase more than a number with a unit."""

_CANONICAL = {spelling: name for name, all_ in _MEASURES.items() for spelling in all_.split()}
_WORD = re.compile(r"[A-Za-z][A-Za-z-]*|\^\{?-?\d+\}?|/|\d+|[^\sA-Za-z]")
_ASKED_IN = re.compile(
    r"(?:how\s+many|in|number\s+of)\s+(dozens?|hundreds?|thousands?|millions?|billions?)\b",
    re.IGNORECASE,
)
_SQUARE = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}


def read_unit(text: str, known: Collection[str] = ()) -> str | None:
    r"""Return the canonical name of a unit written in words, "" for fillers, None for no unit.

    `known` are words of the question. Examples: "square centimeters" and "cm^{2}" -> "cm^2";
    "miles per hour" -> "mile/hour"; "or 7" -> None.
    """
    text = text.replace(WORDS_OPEN, " ").replace(WORDS_CLOSE, " ")
    text = re.sub(r"\\(?:cdot|times|degree)(?![A-Za-z])|[*~.]", " ", text)
    return "time" if text.strip() == "times" else _read_unit(text, known)


def _read_unit(text: str, known: Collection[str]) -> str | None:
    over: list[str] = []
    under: list[str] = []
    side, power = over, 1
    for token in _WORD.findall(text):
        low = token.casefold()
        if token == "/" or low == "per":
            side = under
        elif low in _SQUARE:
            if low in ("squared", "cubed") and side:
                side[-1] += f"^{_SQUARE[low]}"
            else:
                power = _SQUARE[low]
        elif token[0] == "^":
            if not side:
                return None
            side[-1] += "^" + re.sub(r"[^\d-]", "", token)
        else:
            name = _canonical(token, known)
            if name is None:
                return None
            if name:
                side.append(name if power == 1 else f"{name}^{power}")
                power = 1
    if power != 1:
        return None
    return _joined(over, under)


def _joined(over: list[str], under: list[str]) -> str:
    for name in list(over):
        if "^-" in name:
            over.remove(name)
            under.append(name.replace("^-1", "").replace("^-", "^"))
    text = "*".join(sorted(over)) + ("/" + "*".join(sorted(under)) if under else "")
    return {"mile/hour": "mph", "km/hour": "kmh"}.get(text, text)


def _canonical(word: str, known: Collection[str]) -> str | None:
    low = word.casefold()
    if word in _CANONICAL:
        return _CANONICAL[word]
    if low in FACTORS and f"in {singular(low)}" in known:
        return singular(low)
    if low in CHANGES or low in FACTORS or low == "times":
        return None
    if low in _CANONICAL and len(low) > 2:
        return _CANONICAL[low]
    if low in _FILLERS:
        return ""
    single = singular(low)
    if single in _COUNTED:
        return single
    if len(low) > 2 and (low in known or single in known):
        return single
    return None


def singular(word: str) -> str:
    """Return the singular of an English noun, by rule. Example: "berries" -> "berry"."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return word[:-1]
    return word


def factor_of(word: str, known: Collection[str] = ()) -> Fraction | None:
    """Return what a word such as "million" multiplies by, None for any other word.

    Where the question asks how many millions there are, it is a unit.
    """
    if f"in {singular(word.casefold())}" in known:
        return None
    value = FACTORS.get(word.casefold())
    return None if value is None else Fraction(value)


def question_words(question: str) -> frozenset[str]:
    """Return the words of a question that may name what is counted, in singular and as written."""
    words = {w.casefold() for w in re.findall(r"[A-Za-z]{3,}", question)} - CHANGES
    asked = {f"in {singular(w.casefold())}" for w in _ASKED_IN.findall(question)}
    return frozenset(words | {singular(word) for word in words} | asked)
