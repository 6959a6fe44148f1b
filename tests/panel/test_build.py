"""The committed front end belongs to its sources; seen without Node."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import workbench
from workbench.panel import protocol

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "extension"
REBUILD = "run: cd extension && jlpm install --immutable && jlpm build:prod, and commit what it made"
LISTED = ("package.json", "yarn.lock", ".yarnrc.yml", "tsconfig.json", "rspack.config.js", "install.json")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_build_is_of_these_sources() -> None:
    files = [*LISTED]
    for folder in ("src", "style", "schema", "scripts"):
        files += [p.relative_to(EXTENSION).as_posix() for p in (EXTENSION / folder).rglob("*") if p.is_file()]
    text = "".join(f"{name}\0{digest((EXTENSION / name).read_bytes())}\n" for name in sorted(files))
    stamp = (ROOT / "workbench/static/sources.sha256").read_text().strip()
    assert stamp == digest(text.encode()), REBUILD


def test_the_build_is_whole() -> None:
    built = json.loads((ROOT / "workbench/labextension/package.json").read_text())
    entry = built["jupyterlab"]["_build"]["load"]
    assert (ROOT / "workbench/labextension" / entry).is_file(), REBUILD
    assert (ROOT / "workbench/labextension/static/style.js").is_file(), REBUILD
    assert (ROOT / "workbench/labextension/schemas/workbench-lab/plugin.json").is_file(), REBUILD
    assert "export{" in (ROOT / "workbench/static/widget.js").read_text()[-200:], REBUILD


def test_the_types_are_of_these_messages_and_edits() -> None:
    for name, schema in (("protocol", protocol.schema()), ("plan", protocol.edit_schema())):
        written = (EXTENSION / f"src/view/{name}.ts").read_text()
        expected = digest(json.dumps(schema, sort_keys=True).encode())
        assert expected in written[:200], (
            f"{name}.ts is stale; run: cd extension && jlpm types, then {REBUILD}"
        )


def test_versions_agree() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    view = (EXTENSION / "src/view/version.ts").read_text()
    channel = (EXTENSION / "src/view/channel.ts").read_text()
    assert package["version"] == workbench.__version__ and f"'{workbench.__version__}'" in view
    assert f"PROTOCOL = {protocol.PROTOCOL};" in channel


def test_untrusted_text_can_only_become_text() -> None:
    """No way from a string to markup or code anywhere in the view, and no address outside."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function|"
        r"https?://|\bfetch\(|XMLHttpRequest|WebSocket|import\("
    )
    # Vega comes when the first chart is drawn: from this server's own folder, or as bytes from the kernel's package.
    known = {
        ("index.ts", "useVega(() => import('./view/vega'));"),
        ("figure.ts", "type Vega = typeof import('./vega');"),
        ("anywidget.ts", "function loadVega(model: Model): Promise<typeof import('./vega')> {"),
        (
            "anywidget.ts",
            "import(address).then(resolve, reject).finally(() => URL.revokeObjectURL(address));",
        ),
    }
    for path in sorted((EXTENSION / "src").rglob("*.ts")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (path.name, line.strip()) not in known:
                assert not forbidden.search(line), f"{path.name}:{number}: {line.strip()}"


def test_the_state_in_the_page_and_the_messages_are_documented() -> None:
    """Names that tests and other tools read: none in the sources that is not in the table, none in the table for nothing."""
    readme = (EXTENSION / "README.md").read_text()
    sources = "".join(path.read_text() for path in sorted((EXTENSION / "src").rglob("*.ts")))
    used = set(re.findall(r"data-wb-[a-z-]+", sources))
    used |= {
        "data-wb-" + re.sub("(?<!^)([A-Z])", r"-\1", name).lower()
        for name in re.findall(r"dataset\['wb([A-Za-z]+)'\]", sources)
    }
    listed = set(re.findall(r"`(data-wb-[a-z-]+)", readme))
    assert used == listed, (used - listed, listed - used)
    for name in re.findall(r"button\([^,;]+, '([a-z-]+)',", sources):
        assert f"`{name}`" in readme, f"the action {name} is not in the table"
    schema = protocol.schema()["$defs"]
    types = [body.get("properties", {}).get("type", {}) for body in schema.values()]
    messages = {kind["const"] for kind in types if "const" in kind}
    assert [name for name in messages if f"`{name}`" not in readme] == []
