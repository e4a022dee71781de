"""Sentences with a number in them, in five languages, worded differently in each split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The labels, in order."""
TWO_NUMBERS = 0.25
"""Share of the sentences that name another number beside the right one, so that the text cannot tell which is meant."""
AS_NUMERAL = 0.35
"""Share of the sentences that write 7 instead of seven."""
MISTYPED = 0.12
"""Share of the sentences in which two neighbouring letters changed places or one was lost."""

# Per split and language: sentences with one number, then those with two.
WORDINGS: Mapping[str, Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "train": {
        "en": (
            ("The answer is {}.", "Please write down {}.", "She counted to {}", "It takes {} to play this game."),
            ("Bus {} leaves from stop {}.", "First {}, and then {}."),
        ),
        "de": (
            ("Die Antwort ist {}.", "Bitte notieren Sie die {}.", "Sie zählte bis {}"),
            ("Bus {} fährt von Halt {}.", "Erst {}, und dann {}."),
        ),
        "fr": (
            ("La réponse est {}.", "Veuillez noter le {}.", "Elle a compté jusqu'à {}"),
            ("Le bus {} part du quai {}.", "D'abord {}, et puis {}."),
        ),
        "es": (
            ("La respuesta es {}.", "Por favor, anote el {}.", "Ella contó hasta {}"),
            ("El bus {} sale del andén {}.", "Primero {}, y luego {}."),
        ),
        "it": (
            ("La risposta è {}.", "Per favore, scriva {}.", "Lei ha contato fino a {}"),
            ("Il bus {} parte dal binario {}.", "Prima {}, e poi {}."),
        ),
    },
    "val": {
        "en": (("My lucky number is {}", "Press {} to go on."), ("Room {} is on floor {}.",)),
        "de": (("Meine Glückszahl ist {}", "Drücken Sie {}, um fortzufahren."), ("Zimmer {} liegt im Stock {}.",)),
        "fr": (("Mon chiffre préféré est {}", "Appuyez sur {} pour continuer."), ("La chambre {} est à l'étage {}.",)),
        "es": (("Mi número favorito es {}", "Pulse {} para continuar."), ("La sala {} está en la planta {}.",)),
        "it": (("Il mio numero fortunato è {}", "Prema {} per continuare."), ("La camera {} è al piano {}.",)),
    },
    "test": {
        "en": (("He drew a {} on the board", "Call extension {} again!"), ("Was that {} or {}?",)),
        "de": (("Er malte eine {} an die Tafel", "Wählen Sie noch einmal die {}!"), ("War das {} oder {}?",)),
        "fr": (("Il a dessiné un {} au tableau", "Rappelez le poste {} !"), ("C'était {} ou {} ?",)),
        "es": (("Dibujó un {} en la pizarra", "¡Llame otra vez al {}!"), ("¿Era {} o {}?",)),
        "it": (("Ha disegnato un {} alla lavagna", "Richiami l'interno {}!"), ("Era {} o {}?",)),
    },
}


def sentence(digit: int, split: str, rng: np.random.Generator) -> str:
    """A sentence that names the digit, and now and then another number too."""
    from num2words import num2words

    languages = WORDINGS[split]
    language = sorted(languages)[rng.integers(len(languages))]
    with_one, with_two = languages[language]
    numbers = [digit]
    if rng.random() < TWO_NUMBERS:
        numbers.insert(int(rng.integers(2)), int((digit + rng.integers(1, 10)) % 10))
    as_numeral = rng.random() < AS_NUMERAL
    spelt = [str(number) if as_numeral else num2words(number, lang=language) for number in numbers]
    wordings = with_one if len(numbers) == 1 else with_two
    text = wordings[rng.integers(len(wordings))].format(*spelt)
    return _mistype(text, rng) if rng.random() < MISTYPED else text


def _mistype(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(text) - 1))
    lost_or_swapped = text[at + 1] + text[at] if rng.random() < 0.5 else text[at + 1]
    return text[:at] + lost_or_swapped + text[at + 2 :]
