# SPDX-License-Identifier: Apache-2.0
"""Crystal batches as objects of graph libraries, and loaders in those of PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import stoker

torch = pytest.importorskip("torch")
CRYSTALS = Path(__file__).parents[2] / "deploy" / "samples" / "textbook_crystals"
FEATURES = {str(z): [float(z), z / 10, 1.0] for z in range(1, 101)}


@pytest.fixture(scope="module")
def crystals(client, tmp_path_factory):
    """The crystals of deploy/samples with atom features and texts."""
    import json

    table = tmp_path_factory.mktemp("features") / "features.json"
    table.write_text(json.dumps(FEATURES))
    client.ingest(
        "crystals",
        CRYSTALS / "structures.json",
        target="density",
        atom_features=table,
        sidecar={"text": CRYSTALS / "descriptions.csv"},
    )

    def make(size=8, **options):
        options = {"rank": 0, "world_size": 1, **options}
        return stoker.Loader("crystals", stoker.graph(), client=client, batch_size=size, **options)

    return make


def by_hand():
    """Two graphs of 2 and 1 atoms, as the daemon batches them."""
    return stoker.Batch.from_arrays(
        {
            "atomic_number": np.array([11, 17, 29]),
            "frac_coords": np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]], np.float32),
            "lattice": np.stack([np.eye(3) * 2, np.eye(3) * 3]).astype(np.float32),
            "edge_index": np.array([[0, 1, 1, 2], [1, 0, 0, 2]], np.int32),
            "r": np.arange(12, dtype=np.float32).reshape(4, 3),
            "lg_edge_index": np.array([[0, 1], [1, 0]], np.int32),
            "cos": np.array([0.5, -0.5], np.float32),
            "num_nodes": np.array([2, 1]),
            "num_edges": np.array([3, 1]),
            "num_triplets": np.array([2, 0]),
            "batch": np.array([0, 0, 1]),
            "ptr": np.array([0, 2, 3]),
            "target": np.array([0.25, 4], np.float32),
            "index": np.array([7, 3]),
            "text_offsets": np.array([0, 4, 10]),
            "text_bytes": np.frombuffer(b"saltcopper", np.uint8),
        }
    )


def test_pyg_takes_a_batch_apart():
    pytest.importorskip("torch_geometric")
    import stoker.torch_geometric

    data = stoker.torch_geometric.to_batch(by_hand())
    assert data.num_graphs == 2 and data.num_nodes == 3 and data.num_edges == 4
    salt, copper = data.to_data_list()
    assert salt.z.tolist() == [11, 17] and copper.z.tolist() == [29]
    assert salt.edge_index.tolist() == [[0, 1, 1], [1, 0, 0]] and copper.edge_index.tolist() == [[0], [0]]
    assert salt.lg_edge_index.tolist() == [[0, 1], [1, 0]] and copper.lg_edge_index.shape == (2, 0)
    assert salt.y.tolist() == [0.25] and copper.sample.tolist() == [3]
    assert copper.lattice.tolist() == [[[3, 0, 0], [0, 3, 0], [0, 0, 3]]]
    assert (salt.text, copper.text) == ("salt", "copper")
    assert salt.num_nodes == 2 and data[1].num_nodes == 1
    assert data.edge_attr.tolist() == by_hand()["r"].tolist()


def test_alignn_gets_two_graphs():
    import stoker.alignn

    g, lg, lattice, texts, target = stoker.alignn.to_graphs(by_hand(), text=True)
    assert (g.num_nodes, g.num_edges, g.batch_size) == (3, 4, 2)
    assert g.ndata["atom_features"].tolist() == [[11.0], [17.0], [29.0]]
    torch.testing.assert_close(g.ndata["V"], torch.tensor([8.0, 8.0, 27.0]))
    assert (lg.num_nodes, lg.num_edges) == (4, 2)
    assert lg.edata["h"].tolist() == [0.5, -0.5]
    assert lg.batch_num_nodes.tolist() == [3, 1] and lg.batch_num_edges.tolist() == [2, 0]
    assert lattice.shape == (2, 3, 3) and texts == ["salt", "copper"] and target.tolist() == [0.25, 4.0]


def test_what_is_missing_is_named():
    import stoker.alignn

    batch = by_hand()
    less = stoker.Batch.from_arrays({name: batch[name] for name in batch if name != "lattice"})
    with pytest.raises(stoker.InvalidRequest, match="it has no lattice: name them in"):
        stoker.alignn.to_graphs(less)


def test_pyg_batches_of_the_daemon_are_those_that_pyg_collates(crystals):
    geometric = pytest.importorskip("torch_geometric.data")
    import stoker.torch_geometric

    singles = [
        stoker.torch_geometric.to_batch(batch.copy()).to_data_list()[0] for batch in crystals(1)
    ]
    for batch in crystals(8):
        data = stoker.torch_geometric.to_batch(batch)
        apart = data.to_data_list()
        collated = geometric.Batch.from_data_list(apart)
        assert len(apart) == batch.samples
        for one, index in zip(apart, batch.index.tolist(), strict=True):
            assert set(one.keys()) == set(singles[index].keys())
            for key in one.keys():
                if key == "text":
                    assert one.text == singles[index].text
                elif key != "num_nodes":
                    torch.testing.assert_close(one[key], singles[index][key], rtol=0, atol=0)
        for key in ("edge_index", "z", "x", "batch", "ptr", "y", "cos", "r"):
            torch.testing.assert_close(data[key], collated[key], rtol=0, atol=0)
        assert data.edge_index.data_ptr() == batch.edge_index.__array_interface__["data"][0]
        assert data.x.tolist() == [pytest.approx(FEATURES[str(z)]) for z in data.z.tolist()]


def test_alignn_batches_of_the_daemon_are_well_formed(crystals):
    import stoker.alignn

    seen = 0
    for g, lg, lattice, texts, target in crystals(
        8, transform=lambda batch: stoker.alignn.to_graphs(batch, text=True)
    ):
        seen += len(target)
        assert int(g.dst.max()) < g.num_nodes and int(lg.src.max()) < g.num_edges
        middle = g.dst[lg.src]
        assert torch.equal(middle, g.src[lg.dst])  # an edge follows an edge
        r = g.edata["r"]
        cosine = -(r[lg.src] * r[lg.dst]).sum(1) / (r[lg.src].norm(dim=1) * r[lg.dst].norm(dim=1))
        torch.testing.assert_close(lg.edata["h"], cosine.clamp(-1, 1), atol=2e-6, rtol=0)
        assert len(lattice) == len(texts) == len(target) and all(texts)
    assert seen == len(list(crystals(1)))


def test_budgets_keep_their_limit_and_len_is_that_of_each_epoch(crystals):
    reader = crystals(None, budget={"nodes": 24, "graphs": 10}, shuffle=True, seed=1)
    for _ in range(3):
        steps = len(reader)
        batches = [(len(b.batch), b.samples) for b in reader]
        assert len(batches) == steps
        assert all(nodes <= 24 and graphs <= 10 for nodes, graphs in batches)
        assert sum(graphs for _, graphs in batches) == len(list(crystals(1)))


def test_a_state_under_a_budget(crystals):
    options = {"budget": {"nodes": 24}, "shuffle": True, "seed": 2}
    reader = crystals(None, **options)
    list(reader)
    iterator = iter(reader)
    next(iterator)
    state = reader.state_dict()
    rest = [batch.index.tolist() for batch in iterator]
    resumed = crystals(None, **options)
    resumed.load_state_dict(state)
    assert [batch.index.tolist() for batch in resumed] == rest
    with pytest.raises(stoker.WrongState, match="the budget differs"):
        crystals(None, **{**options, "budget": {"nodes": 30}}).load_state_dict(state)


# ---- PyTorch ----


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")])
def test_a_dataloader_reads_every_sample_once_in_each_epoch(client, workers, context):
    import stoker.torch

    dataset = stoker.torch.Dataset(
        "numbers", stoker.gaf("gasf"), client=client, batch_size=8, shuffle=True, rank=0, world_size=1
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context, timeout=60 if workers else 0
    )
    epochs = [[i for batch in loader for i in batch["index"].tolist()] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 2
    assert epochs[0] != epochs[1]
    dataset.set_epoch(0)
    assert [i for batch in loader for i in batch["index"].tolist()] == epochs[0]
    assert len(dataset) == 7


def test_persistent_workers_advance_their_epochs(client):
    import stoker.torch

    dataset = stoker.torch.Dataset(
        "numbers", stoker.gaf("gasf"), client=client, batch_size=8, shuffle=True, rank=0, world_size=1
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True, timeout=60)
    epochs = [[i for batch in loader for i in batch["index"].tolist()] for _ in range(3)]
    plain = stoker.Loader("numbers", stoker.gaf("gasf"), client=client, batch_size=8, shuffle=True, rank=0, world_size=1)
    assert epochs == [[i for batch in plain for i in batch.index.tolist()] for _ in range(3)]
    plain.close()


def test_lightning(client):
    if not {"lightning", "pytorch_lightning"} & {name for name in ("lightning",) if _importable(name)}:
        pytest.skip("neither lightning nor pytorch_lightning is installed")
    import stoker.torch

    module = stoker.torch.data_module(
        train=lambda: stoker.Loader("numbers", client=client, batch_size=8, rank=0, world_size=1)
    )
    assert len(list(module.train_dataloader())) == 7
    assert module.state_dict()["train"]["epoch"] == 1
    module.teardown("fit")


def _importable(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_dgl(crystals):
    if "dgl" not in sys.modules and not _importable("dgl"):
        pytest.skip("dgl is not installed")
    import dgl
    import stoker.dgl

    for batch in crystals(8):
        g, lg, _, _ = stoker.dgl.to_graphs(batch)
        assert len(dgl.unbatch(g)) == len(dgl.unbatch(lg)) == batch.samples
