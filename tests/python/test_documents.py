# SPDX-License-Identifier: Apache-2.0
"""What the documents of the package tell people to write is run."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import stoker

torch = pytest.importorskip("torch")
TOP = Path(__file__).parents[2]
PACKAGE = TOP / "client" / "python"
CRYSTALS = TOP / "deploy" / "samples" / "textbook_crystals"


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def codes(path):
    """Code inside lines that is an expression, or the arguments of one, as calls by the text they stand in."""
    found = []
    for text in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)):
        source = f"arguments({text})" if re.match(r"\w+=", text) else text
        try:
            tree = ast.parse(source.removesuffix(":") + (": pass" if source.endswith(":") else ""))
        except SyntaxError:
            continue
        found += [(text, node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found


def write_unit(path):
    values = np.random.default_rng(1).normal(size=(400, 2))
    rows = [f"{x:.4f},{y:.4f},{'worn' if i < 200 else 'new'}" for i, (x, y) in enumerate(values)]
    path.write_text("\n".join(["flow,heat,fault", *rows]))


def run(source, tmp_path, monkeypatch, client, **names):
    monkeypatch.setenv("STOKER_ADDRESS", client.address)
    monkeypatch.chdir(tmp_path)
    for variable in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    scope = {"stoker": stoker, **names}
    exec(compile(source, "document", "exec"), scope)
    return scope


def test_the_readme_of_the_package(tmp_path, monkeypatch, client):
    block, device_block = blocks(PACKAGE / "README.md")
    write_unit(tmp_path / "unit.csv")
    seen = []
    scope = run(block, tmp_path, monkeypatch, client, device="cpu", train=seen.append)
    assert len(seen) == 10 * len(scope["loader"])
    assert list(seen[0]) == ["gasf", "gadf", "target", "index"] and seen[0]["gasf"].shape[1:] == (2, 96, 96)
    scope["loader"].close()
    seen.clear()
    scope = run(device_block.replace('"cuda"', '"host"'), tmp_path, monkeypatch, client, train=seen.append)
    assert seen[0]["gasf"].dtype == torch.bfloat16
    scope["loader"].close()


def test_the_readme_of_the_project(tmp_path, monkeypatch, client):
    (block,) = blocks(TOP / "README.md")
    client.ingest(
        "ahu", TOP / "deploy" / "samples" / "air_handling_unit", label_from_file_name=True, window=96, stride=24,
        working_column="is_working", gap_seconds=7200,
    )  # fmt: skip
    scope = run(block, tmp_path, monkeypatch, client)
    assert scope["gasf"].dtype == torch.uint8 and len(json.dumps(scope["state"])) < 1024
    scope["loader"].close()


def test_the_checkpoint_of_the_migration_page(tmp_path, monkeypatch, loader, client):
    (block,) = blocks(PACKAGE / "MIGRATION.md")
    reader = loader()
    iterator = iter(reader)
    next(iterator)
    names = {"torch": torch, "model": torch.nn.Linear(2, 2), "loader": reader, "path": tmp_path / "state.pt"}
    run(block, tmp_path, monkeypatch, client, **names)
    assert next(iter(reader)).step == 1


FUNCTIONS = {
    "client.ingest": stoker.Client.ingest,
    "stoker.Loader": stoker.Loader.__init__,
    "loader.to": stoker.Loader.to,
    "stoker.connect": stoker.connect,
    "stoker.embedded": stoker.embedded,
    "stoker.gaf": stoker.gaf,
    "stoker.graph": stoker.graph,
}


@pytest.mark.parametrize("name", ["README.md", "MIGRATION.md"])
def test_calls_have_the_keywords_that_functions_have(name):
    known = {key for function in FUNCTIONS.values() for key in inspect.signature(function).parameters}
    known |= {"text", "device", "non_blocking", "copy"}  # of adapters and batches
    old = {"seq_len", "neighbor_strategy", "use_lmdb", "num_workers"}  # of what is left behind
    checked = 0
    for text, call in codes(PACKAGE / name):
        called = ast.unparse(call.func)
        keywords = {keyword.arg for keyword in call.keywords} - {None}
        if called in FUNCTIONS:
            wrong = keywords - set(inspect.signature(FUNCTIONS[called]).parameters)
            assert not wrong, text
        elif called == "arguments" and not keywords & old:
            assert keywords <= known, text
        checked += 1
    assert checked > 5


@pytest.mark.parametrize("name", ["README.md", "MIGRATION.md"])
def test_recipes_in_the_documents_give_batches(name, client):
    client.ingest("documented", CRYSTALS / "structures.json", target="density")
    recipes = {
        ast.unparse(call)
        for _, call in codes(PACKAGE / name)
        if ast.unparse(call.func) in ("stoker.gaf", "stoker.graph") and "low" not in ast.unparse(call)
    }
    for text in sorted(recipes):
        dataset = "numbers" if "gaf" in text else "documented"
        with stoker.Loader(dataset, eval(text), client=client, batch_size=8, rank=0, world_size=1) as reader:
            assert next(iter(reader)).samples == 8, text
    assert len(recipes) >= (7 if name == "MIGRATION.md" else 0)


def test_ingests_of_the_migration_page(client, tmp_path, monkeypatch):
    """Each option of crystals and of series, with files of the samples in the place of those named."""
    monkeypatch.chdir(tmp_path)
    write_unit(tmp_path / "sahu.csv")
    (tmp_path / "dft_3d.json").write_bytes((CRYSTALS / "structures.json").read_bytes())
    (tmp_path / "descriptions.csv").write_bytes((CRYSTALS / "descriptions.csv").read_bytes())
    (tmp_path / "cgcnn.json").write_text(json.dumps({str(z): [float(z), 1.0] for z in range(1, 101)}))
    count = len(json.loads((CRYSTALS / "structures.json").read_text()))
    np.save(tmp_path / "bert.npy", np.zeros((count, 768), np.float32))
    texts = [text for text, _ in codes(PACKAGE / "MIGRATION.md")]
    ingests = [text.replace("formation_energy_peratom", "density") for text in texts if text.startswith("client.ingest")]
    assert len(ingests) == 2
    for text in ingests:
        eval(text, {"client": client, "files": "sahu.csv"})
    wanted = ("window=72", "graph=", "atom_features=\"cgcnn.json", "sidecar=", "label_from_file_name")
    options = [text for text in texts if text.startswith(wanted)]
    assert len(options) >= 7, options
    for number, text in enumerate(options):
        series = text.startswith(("window", "label"))
        arguments = {**({"exclude": "fault"} if series else {}), **eval(f"dict({text})")}
        client.ingest(f"option{number}", "sahu.csv" if series else "dft_3d.json", **arguments)
    assert client.dataset("dft_3d").manifest["skipped"] is not None
