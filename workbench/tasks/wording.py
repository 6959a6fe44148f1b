"""How an item is put into words: one row per surface variant, one heading per task and variant.

Every variant says the same content in another language with other separators. The last variant is kept for the shift
split: no training text uses it, and it scatters meaningless filler between the facts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """Language, the separator between facts, and the word before the question, of one surface variant."""

    language: str
    separator: str
    ask: str
    filler: tuple[str, ...] = ()


WORDINGS: tuple[Wording, ...] = (
    Wording("en", ",", ". Ask"),
    Wording("fr", ";", " ; dis"),
    Wording("de", "&", " & sage"),
    Wording("es", "|", " | di"),
    Wording("ru", "/", " / ответ"),
    Wording("en", " - ", ". Now tell", (" and", " then", " so", " well")),
)
SHIFT_VARIANT = len(WORDINGS) - 1
VARIANTS: tuple[int, ...] = tuple(range(SHIFT_VARIANT))

HEADINGS: dict[str, tuple[str, ...]] = {
    "kth_smallest": ("Rank", "Rang", "Reihe", "Orden", "Порядок", "Find by size"),
    "recall": ("Recall", "Rappel", "Abruf", "Recuerda", "Вспомни", "Look up"),
    "two_hop": ("Chain", "Chaîne", "Kette", "Cadena", "Цепь", "Follow"),
    "lexicon": ("Translate", "Traduis", "Übersetze", "Traduce", "Переведи", "Interpret"),
    "rule": ("Rule", "Règle", "Regel", "Regla", "Правило", "Continue"),
    "most_frequent": ("Count", "Compte", "Zähle", "Cuenta", "Счёт", "Vote"),
    "modular_sum": ("Sum", "Somme", "Summe", "Suma", "Сумма", "Total"),
    "stack_top": ("Stack", "Pile", "Stapel", "Pila", "Стек", "Close"),
    "addition": ("Add", "Ajoute", "Addiere", "Agrega", "Сложи", "Plus"),
    "sorting": ("Sort", "Trie", "Sortiere", "Ordena", "Упорядочи", "Arrange"),
}
