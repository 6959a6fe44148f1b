"""The texts: where each comes from, under which licence, and how it becomes plain documents.

Natural languages come from books and manuals that Debian ships in many translations, so that the language is what
differs; a line that a translation left in English is dropped. Code comes from Python's own standard library and
from C headers. Arithmetic is generated. Needs ``apt-get`` and ``dpkg``; nothing is installed.
"""

from __future__ import annotations

import gzip
import html
import random
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.recipe import folders

LANGUAGES = {"en": "en-US", "fr": "fr-FR", "de": "de-DE", "es": "es-ES", "ru": "ru-RU"}
MANUALS = {
    "en": ["manpages", "manpages-dev"],
    "fr": ["manpages-fr", "manpages-fr-dev"],
    "de": ["manpages-de", "manpages-de-dev"],
    "es": ["manpages-es", "manpages-es-dev"],
    "ru": ["manpages-ru", "manpages-ru-dev"],
}
HEADERS = [
    "linux-libc-dev",
    "libc6-dev",
    "libpython3-dev",
    "libpython3.11-dev",
    "libsqlite3-dev",
    "zlib1g-dev",
]
LICENCES = {
    "debian-handbook": "GPL-2+ or CC-BY-SA-3.0",
    "manpages": "GPL-2+, GPL-3+, BSD and verbatim licences of the Linux manual pages and their translations",
    "wordnet": "WordNet licence (permissive)",
    "python": "Python Software Foundation licence",
    "headers": "GPL-2 with syscall note, LGPL-2.1+, PSF, public domain, zlib",
    "generated": "Apache-2.0, as this project",
}
LONGEST = 20_000  # characters; longer texts are cut into several documents
SHORTEST = 200  # characters; shorter texts are dropped


@dataclass(frozen=True)
class Document:
    """One text with its labels; ``language`` is empty for code and arithmetic."""

    text: str
    domain: str
    language: str
    source: str


def documents() -> Iterator[Document]:
    """Every document of the corpus, natural languages first."""
    for language, locale in LANGUAGES.items():
        for text in handbook(locale):
            yield from cut(text, f"prose-{language}", language, "debian-handbook")
        for text in manuals(language):
            yield from cut(text, f"prose-{language}", language, "manpages")
    for text in wordnet():
        yield from cut(text, "prose-en", "en", "wordnet")
    for text in python_library():
        yield from cut(text, "python", "", "python")
    for text in c_headers():
        yield from cut(text, "c", "", "headers")
    for text in arithmetic():
        yield from cut(text, "arithmetic", "", "generated")


def cut(text: str, domain: str, language: str, source: str) -> Iterator[Document]:
    """A text as documents of at most `LONGEST` characters, cut at line ends; scraps are dropped."""
    piece: list[str] = []
    size = 0
    for line in [*text.splitlines(keepends=True), None]:
        if line is None or size + len(line) > LONGEST:
            if size >= SHORTEST:
                yield Document("".join(piece).strip() + "\n", domain, language, source)
            piece, size = [], 0
        if line is not None:
            piece.append(line)
            size += len(line)


def unpacked(package: str) -> Path:
    """Folder of a Debian package's files, downloaded and unpacked on first use."""
    target = folders.cache() / "debian" / package
    if not target.exists():
        download = folders.cache() / "debian" / "archives"
        download.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=download, check=True, capture_output=True)
        (archive,) = download.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)
    return target


def handbook(locale: str) -> list[str]:
    """Chapters of the handbook in one language, one paragraph a line, without lines left in English."""
    folder = unpacked("debian-handbook") / "usr/share/doc/debian-handbook/html"
    chapters = []
    for page in sorted((folder / locale).glob("*.html")):
        lines = paragraphs(page.read_text(encoding="utf-8"))
        original = folder / LANGUAGES["en"] / page.name
        if locale != LANGUAGES["en"] and original.exists():
            english = set(paragraphs(original.read_text(encoding="utf-8")))
            lines = [line for line in lines if line not in english]
        chapters.append("\n".join(lines) + "\n")
    return chapters


def paragraphs(page: str) -> list[str]:
    """Headings and paragraphs of an HTML page as plain lines."""
    found = re.findall(r'<(?:h\d|p|dt|div class="para")[^>]*>(.*?)</(?:h\d|p|dt|div)>', page, flags=re.DOTALL)
    plain = (re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", one))).strip() for one in found)
    return [line for line in plain if len(line) > 20]


def manuals(language: str) -> list[str]:
    """Manual pages of one language as plain text."""
    texts = []
    for package in MANUALS[language]:
        for page in sorted(unpacked(package).glob("usr/share/man/**/*.gz")):
            if not page.is_symlink():
                texts.append(
                    plain_manual(gzip.decompress(page.read_bytes()).decode("utf-8", errors="replace"))
                )
    return texts


def plain_manual(roff: str) -> str:
    """The running text of a manual page: macros and escapes are removed, literal blocks are dropped."""
    lines: list[str] = []
    literal = False
    for line in roff.splitlines():
        if line.startswith((".nf", ".EX")):
            literal = True
        elif line.startswith((".fi", ".EE")):
            literal = False
        elif line.startswith((".PP", ".P", ".TP", ".IP", ".LP", ".SH", ".SS")):
            heading = line.split(" ", 1)[1].strip('"') if line.startswith((".SH ", ".SS ")) else ""
            lines.append("\n" + heading + ("\n" if heading else ""))
        elif not line.startswith((".", "'")) and not literal:
            lines.append(line + " ")
        elif line.startswith((".B ", ".I ", ".BR ", ".IR ", ".BI ")):
            lines.append(line.split(" ", 1)[1].replace('"', "").replace(" (", "(") + " ")
    text = re.sub(r"\\f(\[[^]]*\]|\(..|.)|\\[&|^/,%]|\\s[+-]?\d", "", "".join(lines))
    text = re.sub(r"\\\((?:aq|cq|oq)|\\\[(?:aq|cq|oq)\]", "'", text).replace("\\-", "-").replace("\\e", "\\")
    text = re.sub(r"\\\((lq|rq)|\\\[(lq|rq)\]", '"', text)
    return re.sub(r"[ \t]*\n\s*", "\n", re.sub(r"\\(\(..|\[[^]]*\]|\*\(..|\*.|.)", "", text)).strip() + "\n"


def wordnet() -> list[str]:
    """Definitions of nouns, one a line, in the dictionary's order."""
    lines = []
    for line in (unpacked("wordnet-base") / "usr/share/wordnet/data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        fields, gloss = line.split(" | ", 1)
        lines.append(f"{fields.split(' ')[4].replace('_', ' ')} is {gloss.split(';')[0].strip()}.\n")
    return ["".join(lines[start : start + 100]) for start in range(0, len(lines), 100)]


def python_library() -> list[str]:
    """Modules of Python's standard library, without its tests and tables of characters."""
    folder = Path(sysconfig.get_path("stdlib"))
    skipped = {
        "test",
        "tests",
        "idlelib",
        "site-packages",
        "lib2to3",
        "encodings",
        "__pycache__",
        "pydoc_data",
        "turtledemo",
    }
    files = [
        file for file in sorted(folder.rglob("*.py")) if not skipped & set(file.relative_to(folder).parts)
    ]
    return [file.read_text(encoding="utf-8", errors="replace") for file in files]


def c_headers() -> list[str]:
    """C headers without comments on licence; the longest, which are tables of constants, are left out."""
    texts = []
    for package in HEADERS:
        for file in sorted(unpacked(package).glob("usr/include/**/*.h")):
            if not file.is_symlink() and file.stat().st_size < 100_000:
                text = file.read_text(encoding="utf-8", errors="replace")
                texts.append(re.sub(r"/\*.*?\*/", without_licence, text, flags=re.DOTALL))
    return texts


def without_licence(comment: re.Match[str]) -> str:
    """A C comment, or nothing where it is about licence or copyright."""
    found = re.search(r"licen[sc]e|copyright|warrant", comment[0], flags=re.IGNORECASE)
    return "" if found else comment[0]


def arithmetic() -> list[str]:
    """Two thousand pages of sums, differences, products and comparisons of small numbers, always the same."""
    rng = random.Random("arithmetic")
    pages = []
    for _ in range(2_000):
        lines = []
        for _ in range(40):
            a, b = rng.randrange(10 ** rng.randint(1, 3)), rng.randrange(10 ** rng.randint(1, 2))
            kind = rng.randrange(4)
            if kind == 0:
                lines.append(f"{a} + {b} = {a + b}\n")
            elif kind == 1:
                lines.append(f"{a + b} - {b} = {a}\n")
            elif kind == 2:
                lines.append(f"{a % 20} * {b % 20} = {(a % 20) * (b % 20)}\n")
            else:
                lines.append(f"{a} {'<' if a < b else '>' if a > b else '='} {b}\n")
        pages.append("".join(lines))
    return pages
