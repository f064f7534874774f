// SPDX-License-Identifier: Apache-2.0
// Google Benchmark over crystal graphs, one thread: neighbours, k nearest with line graph, batches from a store. The
// structures are the POSCAR files below ../shared/data/crystals, as in ../shared/peers, or 171 made ones where there
// are none; items are structures or batches. Answers are checked first.
//
//   crystals_bench --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
//   crystals_bench --benchmark_filter=batch --benchmark_enable_random_interleaving=true …   # beside memcpy
//   python tests/bench/crystals_peers.py   # and all of it beside vesin, ALIGNN, PyG and numba
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "google/protobuf/text_format.h"
#include "server/batch/batch_maker.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/poscar_reader.h"
#include "server/ingest/structure.h"
#include "server/transforms/line_graph.h"
#include "server/transforms/neighbours.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/store/crystal_files.h"
#include "tests/unit/transforms/all_pairs.h"
#include "tests/unit/transforms/crystals.h"

namespace stoker {
namespace {

using transforms::Made;
using transforms::NeighbourFinder;
using transforms::NeighbourList;
using transforms::NeighbourOptions;
using Graph = v1::IngestOptions::Crystal;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "crystals_bench: %s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

void Require(bool right, const std::string& what) {
  if (!right) OrDie(absl::StatusOr<int>(absl::InternalError(what)));
}

std::vector<Made> RealStructures() {
  const char* const named = std::getenv("STOKER_SHARED");
  const std::filesystem::path root =
      std::filesystem::path(named != nullptr ? named : STOKER_SHARED_DIR) / "data/crystals";
  std::vector<Made> all;
  if (!std::filesystem::exists(root)) return all;
  for (const auto& file : std::filesystem::recursive_directory_iterator(root)) {
    if (file.path().extension() != ".vasp") continue;
    const std::string path = file.path().string();
    auto structure = OrDie(ingest::ReadPoscar(OrDie(ingest::ReadWholeFile(path, 1 << 24)), path));
    Require(ingest::CompleteStructure(path, &structure).ok(), path);
    Made made{path, {}, structure.frac_coords};
    for (size_t i = 0; i < 9; ++i) made.lattice[i / 3][i % 3] = structure.lattice[i];
    all.push_back(std::move(made));
  }
  std::sort(all.begin(), all.end(), [](const Made& a, const Made& b) { return a.name < b.name; });
  return all;
}

std::vector<Made> MadeStructures() {
  std::vector<Made> all;
  for (uint32_t i = 0; i < 171; ++i) {
    const int64_t atoms = 2 + i % 25;
    const double edge = std::cbrt(18.0 * static_cast<double>(atoms));
    const transforms::Matrix3 lattice = {{{edge, 0.1, 0}, {0.2 * edge, edge, 0.3}, {-0.1, 0.15 * edge, edge}}};
    all.push_back(transforms::Scattered(absl::StrCat("made ", i), lattice, atoms <= 8 ? 2 : 3, atoms, i));
  }
  return all;
}

const std::vector<Made>& Structures() {
  static const auto* const structures = [] {
    auto* all = new std::vector<Made>(RealStructures());
    if (all->empty()) *all = MadeStructures();
    std::fprintf(stderr, "crystals_bench: %zu structures, first %s\n", all->size(), all->front().name.c_str());
    return all;
  }();
  return *structures;
}

// Reads what a caller reads: pairs, images, displacements and distances are complete.
void Check(const NeighbourOptions& options) {
  NeighbourFinder finder = OrDie(NeighbourFinder::Create(options));
  for (size_t s = 0; s < Structures().size(); s += 10) {
    const Made& made = Structures()[s];
    const NeighbourList list = OrDie(finder.Find(made.view()));
    for (int64_t i = 0; i < made.atoms(); ++i) {
      const int64_t count = list.offset[i + 1] - list.offset[i];
      const double longest = count == 0 ? options.cutoff : double{list.distance[list.offset[i + 1] - 1]};
      const double limit = options.graph == Graph::RADIUS ? options.cutoff : longest;
      const auto wanted = static_cast<int64_t>(transforms::PairsOf(made.view(), i, limit + 1e-4).size());
      const auto fewest = static_cast<int64_t>(transforms::PairsOf(made.view(), i, limit - 1e-4).size());
      const bool right = options.graph == Graph::RADIUS ? count >= fewest && count <= wanted : count >= options.k;
      Require(right, absl::StrCat(made.name, ": wrong number of edges"));
    }
  }
}

void BM_Neighbours(benchmark::State& state, const std::string& path) {
  const NeighbourOptions options = {.graph = Graph::RADIUS, .cutoff = static_cast<double>(state.range(0))};
  Check(options);
  NeighbourFinder finder = OrDie(NeighbourFinder::Create(options, path));
  int64_t pairs = 0;
  for (auto _ : state) {
    pairs = 0;
    for (const Made& made : Structures()) pairs += OrDie(finder.Find(made.view())).edges();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * Structures().size()));
  state.counters["pairs"] = static_cast<double>(pairs);
}

void BM_NearestWithLineGraph(benchmark::State& state, const NeighbourOptions& options) {
  Check(options);
  NeighbourFinder finder = OrDie(NeighbourFinder::Create(options));
  transforms::LineGraph graph;
  transforms::Buffer<int64_t> first, second;
  transforms::Buffer<float> cosines;
  int64_t edges = 0, triplets = 0;
  for (auto _ : state) {
    edges = triplets = 0;
    for (const Made& made : Structures()) {
      const NeighbourList list = OrDie(finder.Find(made.view()));
      graph.Assign(v1::GraphRecipe::TORCH, list.offset, list.destination, list.triplet_degree, list.r);
      const auto count = static_cast<size_t>(graph.triplets());
      graph.Write(v1::DTYPE_I64, 0, v1::DTYPE_F32, first.Reserve(count), second.Reserve(count), cosines.Reserve(count));
      edges += list.edges();
      triplets += graph.triplets();
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * Structures().size()));
  state.counters["edges"] = static_cast<double>(edges);
  state.counters["triplets"] = static_cast<double>(triplets);
}

// ---- batches ----

constexpr size_t kGraphs = 2048, kBatch = 64;
constexpr size_t kRingBytes = size_t{96} << 20;  // larger than the caches

// As collate.py: the structures' graphs by ALIGNN's rule over and over, drawn without repetition.
class Batches {
 public:
  Batches() {
    std::vector<store::testing::CrystalSample> samples;
    NeighbourFinder finder = OrDie(NeighbourFinder::Create({.graph = Graph::ALIGNN}));
    transforms::LineGraph graph;
    for (size_t i = 0; i < kGraphs; ++i) {
      const Made& made = Structures()[i % Structures().size()];
      samples.push_back(SampleOf(made, OrDie(finder.Find(made.view())), &graph));
    }
    store::testing::WriteCrystalStore(temp_.File("store"), {samples});
    v1::Recipe recipe;
    Require(google::protobuf::TextFormat::ParseFromString(
                "graph { line_graph: TORCH tensors: ['atomic_number', 'edge_index', 'r', 'lg_edge_index', 'cos', "
                "'num_nodes', 'num_edges'] }",
                &recipe),
            "recipe");
    maker_ = OrDie(batch::BatchMaker::Create(temp_.File("store"), recipe));
    std::vector<uint64_t> order(kGraphs);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(3));
    const plan::CostTable costs = maker_->costs();
    for (size_t at = 0; at < kGraphs; at += kBatch) {
      lots_.emplace_back(order.begin() + static_cast<ptrdiff_t>(at),
                         order.begin() + static_cast<ptrdiff_t>(at + kBatch));
      batch::Counts total;
      for (const uint64_t s : lots_.back()) total += {1, costs.nodes[s], costs.edges[s], costs.triplets[s], 0};
      totals_.push_back(total);
      bytes_.push_back(OrDie(tensor::Layout::Create(OrDie(maker_->TensorsFor(total)))).extent_bytes());
    }
    to_.assign(kRingBytes, 1);
    from_.assign(kRingBytes, 2);
  }

  // Bytes of the batch.
  size_t Make(size_t lot) { return MakeAt(lot, Place(lot, &to_)); }
  // Into the same memory each time, which stays in the caches: as a collate function whose allocator hands the batch
  // before back to it.
  size_t MakeAgain(size_t lot) { return MakeAt(lot, to_.data()); }
  size_t Copy(size_t lot) {
    std::memcpy(Place(lot, &to_), Place(lot, &from_), bytes_[lot]);
    return bytes_[lot];
  }
  size_t lots() const { return lots_.size(); }

 private:
  size_t MakeAt(size_t lot, uint8_t* extent) {
    const absl::Status status = maker_->WritePart(lots_[lot], {}, totals_[lot], {extent, bytes_[lot]});
    Require(status.ok(), status.ToString());
    return bytes_[lot];
  }
  static store::testing::CrystalSample SampleOf(const Made& made, const NeighbourList& list,
                                                transforms::LineGraph* graph) {
    store::testing::CrystalSample sample;
    sample.atomic_number.assign(static_cast<size_t>(made.atoms()), 6);
    sample.frac_coords = made.fraction;
    for (const transforms::Vector3& row : made.lattice)
      sample.lattice.insert(sample.lattice.end(), row.begin(), row.end());
    sample.source.assign(list.source.begin(), list.source.end());
    sample.destination.assign(list.destination.begin(), list.destination.end());
    sample.image.assign(list.image.begin(), list.image.end());
    sample.r.assign(list.r.begin(), list.r.end());
    sample.distance.assign(list.distance.begin(), list.distance.end());
    sample.triplet_degree.assign(list.triplet_degree.begin(), list.triplet_degree.end());
    sample.sidecar = {0, 0};
    for (size_t k = 0; k < 3; ++k) {
      const v1::GraphRecipe::LineGraph kinds[] = {v1::GraphRecipe::DGL, v1::GraphRecipe::TORCH,
                                                  v1::GraphRecipe::M3GNET};
      graph->Assign(kinds[k], list.offset, list.destination, list.triplet_degree, list.r);
      sample.triplets[k] = graph->triplets();
    }
    return sample;
  }

  // One after the other through the ring.
  uint8_t* Place(size_t lot, std::vector<uint8_t>* ring) const {
    const size_t room = *std::max_element(bytes_.begin(), bytes_.end()), places = kRingBytes / room;
    Require(places > 0, "the ring has no room for a batch");
    return ring->data() + lot % places * room;
  }

  stoker::testing::TempDir temp_;
  std::unique_ptr<batch::BatchMaker> maker_;
  std::vector<std::vector<uint64_t>> lots_;
  std::vector<batch::Counts> totals_;
  std::vector<size_t> bytes_;
  std::vector<uint8_t> to_, from_;
};

void BM_Batch(benchmark::State& state, size_t (Batches::*run)(size_t)) {
  static Batches batches;
  size_t bytes = 0;
  for (auto _ : state) {
    for (size_t lot = 0; lot < batches.lots(); ++lot) bytes += (batches.*run)(lot);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * batches.lots()));
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
}

void RegisterAll() {
  for (const std::string& path : transforms::CrystalPaths()) {
    benchmark::RegisterBenchmark(absl::StrCat("neighbours/", path).c_str(), BM_Neighbours, path)
        ->Arg(5)
        ->Arg(6)
        ->Arg(8);
  }
  benchmark::RegisterBenchmark("knn_line_graph/tolerance", BM_NearestWithLineGraph, NeighbourOptions{});
  benchmark::RegisterBenchmark("knn_line_graph/alignn", BM_NearestWithLineGraph,
                               NeighbourOptions{.graph = Graph::ALIGNN});
  benchmark::RegisterBenchmark("knn_line_graph/strictly_12", BM_NearestWithLineGraph,
                               NeighbourOptions{.graph = Graph::CGCNN});
  benchmark::RegisterBenchmark("batch/store", BM_Batch, &Batches::Make);
  benchmark::RegisterBenchmark("batch/store_same_memory", BM_Batch, &Batches::MakeAgain);
  benchmark::RegisterBenchmark("batch/memcpy", BM_Batch, &Batches::Copy);
}

}  // namespace
}  // namespace stoker

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  stoker::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
}
