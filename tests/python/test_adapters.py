# SPDX-License-Identifier: Apache-2.0
"""Crystal batches as objects of graph libraries, and loaders in those of PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stoker

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # models here are small
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
    assert g.ndata["atom_features"].tolist() == [[11.0], [17.0], [29.0]] and g.ndata["Z"].tolist() == [11, 17, 29]
    torch.testing.assert_close(g.ndata["V"], torch.tensor([8.0, 8.0, 27.0]))
    assert (lg.num_nodes, lg.num_edges) == (4, 2)
    assert lg.edata["h"].tolist() == [0.5, -0.5] and lg.ndata["r"] is g.edata["r"]
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


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_are_in_one_epoch_whatever_came_before(client, context, persistent):
    """An epoch left early, one without workers, one with fewer, and a generator of seeds set back to where it was."""
    import stoker.torch

    dataset = stoker.torch.Dataset(
        "numbers", stoker.gaf("gasf"), client=client, batch_size=4, shuffle=True, rank=0, world_size=1
    )

    def open_loader(workers):
        several = {"num_workers": workers, "multiprocessing_context": context, "persistent_workers": persistent, "timeout": 60}
        return torch.utils.data.DataLoader(dataset, batch_size=None, **(several if workers else {}))

    def epoch_of(loader):
        samples = [i for batch in loader for i in batch["index"].tolist()]
        assert sorted(samples) == list(range(50))
        return tuple(samples)

    both = open_loader(2)
    next(iter(both))
    epochs = [epoch_of(both)]
    next(iter(open_loader(0)))
    epochs += [epoch_of(both), epoch_of(open_loader(0)), epoch_of(open_loader(1)), epoch_of(both)]
    for _ in range(2):
        torch.manual_seed(1)
        epochs.append(epoch_of(open_loader(2)))
    assert len(set(epochs)) == len(epochs)


def test_a_transform_that_returns_a_batch_gives_its_tensors(client):
    import stoker.torch

    dataset = stoker.torch.Dataset(
        "numbers", stoker.gaf("gasf"), client=client, batch_size=8, transform=stoker.Batch.copy, rank=0, world_size=1
    )
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=None)))
    assert isinstance(batch["gasf"], torch.Tensor)
    assert batch["index"].tolist() == list(range(8))


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


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stateful_dataloader_goes_on_at_every_place(client, workers):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    import stoker.torch

    def open_loader(state=None):
        dataset = stoker.torch.Dataset(
            "numbers", stoker.gaf("gasf"), client=client, batch_size=8, shuffle=True, rank=0, world_size=1
        )
        assert len(dataset) == 7  # opens a loader in this process, which workers inherit
        loader = torchdata.StatefulDataLoader(
            dataset, batch_size=None, num_workers=workers, timeout=60 if workers else 0
        )
        if state is not None:
            loader.load_state_dict(state)
        return loader

    def rest(loader):
        return [batch["index"].tolist() for batch in loader]

    whole = open_loader()
    epochs = [rest(whole) for _ in range(4)]
    assert len({str(epoch) for epoch in epochs}) == 4
    steps = len(epochs[1])
    for taken in (0, 1, steps // 2, steps):
        loader = open_loader()
        assert rest(loader) == epochs[0]
        iterator = iter(loader)
        assert [next(iterator)["index"].tolist() for _ in range(taken)] == epochs[1][:taken]
        resumed = open_loader(loader.state_dict())
        assert rest(resumed) == epochs[1][taken:]
        assert rest(resumed) == epochs[2]
        ended = open_loader(resumed.state_dict())  # of an epoch that was read to its end
        assert rest(ended) == epochs[3]


def test_lightning_trains_and_goes_on_inside_an_epoch(client, tmp_path):
    pl = pytest.importorskip("lightning", reason="lightning is not installed")
    import stoker.torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(32, 3)
            self.seen, self.validated = [], 0

        def training_step(self, batch, step):
            self.seen.append((self.current_epoch, step, batch["index"].tolist()))
            return torch.nn.functional.cross_entropy(self.layer(batch["series"].flatten(1)), batch["target"])

        def validation_step(self, batch, step):
            self.validated += len(batch["index"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def open_loader(**options):
        return stoker.Loader("numbers", stoker.gaf("series"), client=client, batch_size=8, **options)

    def fit(checkpoint=None):
        model = Model()
        module = stoker.torch.data_module(train=lambda: open_loader(shuffle=True, seed=4), val=open_loader)
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=2, logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=2,
            callbacks=[ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)],
        )  # fmt: skip
        trainer.fit(model, datamodule=module, ckpt_path=checkpoint)
        assert module.made == {}
        return model

    whole = fit()
    with open_loader(shuffle=True, seed=4) as plain:
        assert whole.seen == [(e, step, b.index.tolist()) for e in range(2) for step, b in enumerate(plain)]
    assert whole.validated == 16 + 2 * 50
    for done in (3, 9):
        assert fit(tmp_path / f"step={done}.ckpt").seen == whole.seen[done:]


def test_a_data_module_knows_its_stages():
    pytest.importorskip("lightning", reason="lightning is not installed")
    import stoker.torch

    with pytest.raises(TypeError, match="training: there are train, val, test and predict"):
        stoker.torch.data_module(training=list)


# ---- ALIGNN and DGL ----


@pytest.fixture
def alignn_batches(crystals):
    import stoker.alignn

    with crystals(6, transform=stoker.alignn.to_graphs) as reader:
        yield reader


def assert_same_graph(one, other):
    assert one.num_nodes == other.num_nodes
    for name in ("src", "dst", "batch_num_nodes", "batch_num_edges"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)
    for ours, theirs in ((one.ndata, other.ndata), (one.edata, other.edata)):
        assert set(ours) == set(theirs)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_alignn_takes_batches_apart_and_puts_them_together_again(alignn_batches):
    builder = pytest.importorskip("alignn.torch_graph_builder", reason="alignn is not installed")
    for g, lg, _, _ in alignn_batches:
        assert isinstance(g, builder.TorchGraph) and isinstance(lg, builder.TorchGraph)
        pairs = list(zip(builder.unbatch(g), builder.unbatch(lg), strict=True))
        for one, line in pairs:
            cosines = builder.torch_bond_cosines(one.edata["r"][line.src], one.edata["r"][line.dst])
            torch.testing.assert_close(line.edata["h"], cosines, rtol=0, atol=2e-6)
            assert {"atom_features", "frac_coords", "V", "Z"} <= set(one.ndata)
        for ours, theirs in zip((g, lg), builder.batch_torch_graph_pairs(pairs), strict=True):
            assert_same_graph(ours, theirs)


@pytest.mark.parametrize("forces", [False, True])
def test_alignns_model_learns_from_batches_as_from_single_graphs(alignn_batches, forces):
    pure = pytest.importorskip("alignn.models.alignn_atomwise_pure", reason="alignn's models cannot be imported")
    builder = pytest.importorskip("alignn.torch_graph_builder")
    torch.manual_seed(0)
    config = pure.ALIGNNAtomWisePureConfig(
        name="alignn_atomwise_pure", atom_input_features=3, hidden_features=16, embedding_features=16,
        calculate_gradient=forces, stresswise_weight=float(forces),
    )  # fmt: skip
    model = pure.ALIGNNAtomWisePure(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(3):
        for g, lg, lattice, target in alignn_batches:
            model.eval()  # batch norm is not the same over single graphs
            single = [
                model([one, line, cell])["out"].detach().reshape(())
                for one, line, cell in zip(builder.unbatch(g), builder.unbatch(lg), lattice, strict=True)
            ]
            torch.testing.assert_close(model([g, lg, lattice])["out"].detach(), torch.stack(single), rtol=1e-3, atol=1e-3)
            model.train()
            result = model([g, lg, lattice])
            loss = torch.nn.functional.l1_loss(result["out"], target)
            if forces:
                assert result["grad"].shape == (g.num_nodes, 3) and result["stresses"].shape == (len(target), 3, 3)
                loss = loss + 1e-3 * (result["grad"].square().mean() + result["stresses"].square().mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    third = len(losses) // 3
    assert sum(losses[-third:]) < sum(losses[:third])


def test_alignns_training_loop_takes_a_loader(alignn_batches):
    import stoker.alignn

    loader = stoker.alignn.TrainLoader(alignn_batches)
    ids = [i for _, i in zip(loader, loader.dataset.ids, strict=False)]
    assert ids == list(range(len(loader)))
    assert len(loader.dataset.ids) == sum(len(target) for *_, target in loader)
    loader.dataset.close()
    with pytest.raises(stoker.Closed):
        iter(loader)


def test_dgl_takes_batches_apart(crystals, monkeypatch):
    monkeypatch.setenv("DGLBACKEND", "pytorch")  # else it writes a file into the home directory
    dgl = pytest.importorskip("dgl", reason="dgl is not installed", exc_type=ImportError)
    import stoker.alignn
    import stoker.dgl

    for batch in crystals(6):
        g, lg, lattice, target = stoker.dgl.to_graphs(batch)
        ours, _, _, _ = stoker.alignn.to_graphs(batch)
        assert isinstance(g, dgl.DGLGraph) and len(lattice) == len(target) == g.batch_size == lg.batch_size
        for name in ours.ndata:
            torch.testing.assert_close(g.ndata[name], ours.ndata[name], rtol=0, atol=0)
        singles = dgl.unbatch(g)
        assert [one.num_nodes() for one in singles] == batch.num_nodes.tolist()
        for one, line, triplets in zip(singles, dgl.unbatch(lg), batch.num_triplets.tolist(), strict=True):
            assert line.num_nodes() == one.num_edges() and line.num_edges() == triplets
            torch.testing.assert_close(line.ndata["r"], one.edata["r"], rtol=0, atol=0)
        again = dgl.batch(singles)
        assert torch.equal(torch.stack(again.edges()), torch.stack(g.edges()))
        torch.testing.assert_close(dgl.sum_edges(g, "r"), dgl.sum_edges(again, "r"), rtol=0, atol=0)
