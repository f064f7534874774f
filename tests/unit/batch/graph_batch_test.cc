// SPDX-License-Identifier: Apache-2.0
#include "server/batch/graph_batch.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/batch/planned_batches.h"
#include "server/batch/recipe.h"
#include "server/plan/plan.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/store/crystal_files.h"

namespace stoker::batch {
namespace {

using ::stoker::testing::StatusIs;
using store::testing::Chain;
using store::testing::CrystalSample;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Recipe Text(const std::string& text) {
  v1::Recipe recipe;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &recipe)) << text;
  return recipe;
}

// A graph of `atoms` atoms, each with up to six edges to any atom, of which the first ones have triplets.
CrystalSample RandomGraph(int atoms, std::mt19937* random) {
  CrystalSample sample = Chain(atoms, absl::StrCat("random ", atoms));
  sample.source.clear(), sample.destination.clear(), sample.image.clear(), sample.r.clear(), sample.distance.clear();
  std::vector<int> degree(atoms);
  const auto below = [&](int n) { return static_cast<int>((*random)() % static_cast<uint32_t>(n)); };
  for (int i = 0; i < atoms; ++i) {
    degree[i] = below(7);
    for (int e = 0; e < degree[i]; ++e) {
      sample.source.push_back(i);
      sample.destination.push_back(below(atoms));
      for (int k = 0; k < 3; ++k) sample.image.push_back(below(5) - 2);
      const float x = 1.0f + static_cast<float>(below(100)) / 10, y = static_cast<float>(below(100)) / 7 - 5;
      store::testing::Append(&sample.r, {x, y, 0.5f});
      sample.distance.push_back(std::sqrt(x * x + y * y + 0.25f));
    }
    sample.triplet_degree[i] = degree[i] == 0 ? 0 : below(degree[i] + 1);
  }
  return sample;
}

// The triplets of a sample, by looking at all pairs of edges.
std::vector<std::pair<int64_t, int64_t>> Triplets(const CrystalSample& sample, v1::GraphRecipe::LineGraph kind) {
  std::vector<bool> active;
  for (size_t e = 0, first = 0; e < sample.source.size(); ++e) {
    if (e > 0 && sample.source[e] != sample.source[e - 1]) first = e;
    active.push_back(static_cast<int32_t>(e - first) < sample.triplet_degree[sample.source[e]]);
  }
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (size_t a = 0; a < active.size(); ++a) {
    for (size_t b = 0; b < active.size(); ++b) {
      const int32_t middle = kind == v1::GraphRecipe::M3GNET ? sample.source[a] : sample.destination[a];
      if (!active[a] || !active[b] || middle != sample.source[b]) continue;
      if (a != b || kind == v1::GraphRecipe::TORCH) pairs.emplace_back(a, b);
    }
  }
  return pairs;
}

CrystalSample Counted(CrystalSample sample) {
  sample.triplets.clear();
  for (const auto kind : {v1::GraphRecipe::DGL, v1::GraphRecipe::TORCH, v1::GraphRecipe::M3GNET}) {
    sample.triplets.push_back(static_cast<int64_t>(Triplets(sample, kind).size()));
  }
  return sample;
}

float Bf16(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

class GraphBatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(7);
    std::vector<CrystalSample> first = {Chain(1, "one"), Chain(3, "three"), RandomGraph(2, &random)};
    std::vector<CrystalSample> second = {RandomGraph(1, &random), RandomGraph(40, &random), Chain(2, "two")};
    first.push_back(RandomGraph(5, &random));
    for (std::vector<CrystalSample>* shard : {&first, &second}) {
      for (CrystalSample& sample : *shard) samples_.push_back(sample = Counted(std::move(sample)));
    }
    CrystalSample lonely = Chain(1, "lonely");  // no neighbours at all
    lonely.source.clear(), lonely.destination.clear(), lonely.image.clear(), lonely.r.clear(), lonely.distance.clear();
    lonely.triplet_degree = {0};
    second.push_back(Counted(std::move(lonely)));
    samples_.push_back(second.back());
    manifest_ = store::testing::WriteCrystalStore(dir(), {first, second});
  }

  std::string dir() const { return temp_.File("store"); }

  absl::StatusOr<std::unique_ptr<BatchMaker>> Maker(const std::string& recipe) const {
    return BatchMaker::Create(dir(), Text(recipe));
  }

  struct Made {
    tensor::Layout layout;
    std::vector<uint8_t> extent;
    template <typename T>
    std::vector<T> Get(const std::string& name) const {
      for (size_t t = 0; t < layout.tensors().size(); ++t) {
        const tensor::TensorSpec& spec = layout.tensors()[t];
        if (spec.name != name) continue;
        std::vector<T> values(spec.size_bytes() / sizeof(T));
        if (!values.empty()) std::memcpy(values.data(), extent.data() + layout.offset_bytes(t), spec.size_bytes());
        return values;
      }
      ADD_FAILURE() << "no tensor " << name;
      return {};
    }
  };

  // A batch of these samples, in parts that end at `cuts`.
  Made Make(BatchMaker* maker, const std::vector<uint64_t>& samples, std::vector<size_t> cuts = {}) const {
    cuts.push_back(samples.size());
    const plan::CostTable costs = maker->costs();
    const auto counts = [&](size_t end) {
      Counts sum;
      for (size_t i = 0; i < end; ++i) {
        const uint64_t s = samples[i];
        sum += {1, costs.nodes[s], costs.edges[s], costs.triplets[s], costs.text_bytes[s]};
      }
      return sum;
    };
    const Counts total = counts(samples.size());
    Made made{tensor::Layout::Create(maker->TensorsFor(total).value()).value(), {}};
    made.extent.assign(made.layout.extent_bytes(), 0xee);
    size_t first = 0;
    for (const size_t end : cuts) {
      const absl::Span<const uint64_t> part(samples.data() + first, end - first);
      EXPECT_OK(maker->WritePart(part, counts(first), total, absl::MakeSpan(made.extent)));
      first = end;
    }
    return made;
  }

  stoker::testing::TempDir temp_;
  std::vector<CrystalSample> samples_;
  v1::StoreManifest manifest_;
};

const std::vector<uint64_t> kAll = {4, 0, 7, 2, 5, 3, 1, 6};

TEST_F(GraphBatchTest, DefaultTensors_AreThoseOfAnAlignnBatch) {
  ASSERT_OK_AND_ASSIGN(const auto maker, Maker(""));
  EXPECT_THAT(maker->recipe().graph().tensors(),
              ElementsAre("atomic_number", "x", "frac_coords", "lattice", "edge_index", "r", "lg_edge_index", "cos",
                          "num_nodes", "num_edges", "num_triplets", "batch", "ptr", "target", "index", "text_offsets",
                          "text_bytes", "embedding"));
}

TEST_F(GraphBatchTest, Nodes_AreThoseOfTheSamplesOneAfterTheOther) {
  ASSERT_OK_AND_ASSIGN(const auto maker, Maker(""));
  const Made batch = Make(maker.get(), kAll);
  std::vector<int64_t> numbers, row, ptr = {0};
  std::vector<float> x, fraction, lattice, target, embedding;
  std::string text;
  std::vector<int64_t> text_offsets = {0};
  for (size_t i = 0; i < kAll.size(); ++i) {
    const CrystalSample& sample = samples_[kAll[i]];
    for (const uint8_t z : sample.atomic_number) {
      numbers.push_back(z);
      row.push_back(static_cast<int64_t>(i));
      store::testing::Append(&x, {static_cast<float>(z), 1.0f / static_cast<float>(z + 1)});
    }
    for (const double f : sample.frac_coords) fraction.push_back(static_cast<float>(f));
    for (const double f : sample.lattice) lattice.push_back(static_cast<float>(f));
    target.push_back(static_cast<float>(sample.target));
    store::testing::Append(&embedding, sample.sidecar);
    ptr.push_back(static_cast<int64_t>(numbers.size()));
    text += sample.text;
    text_offsets.push_back(static_cast<int64_t>(text.size()));
  }
  EXPECT_EQ(batch.Get<int64_t>("atomic_number"), numbers);
  EXPECT_EQ(batch.Get<int64_t>("batch"), row);
  EXPECT_EQ(batch.Get<int64_t>("ptr"), ptr);
  EXPECT_EQ(batch.Get<float>("x"), x);
  EXPECT_EQ(batch.Get<float>("frac_coords"), fraction);
  EXPECT_EQ(batch.Get<float>("lattice"), lattice);
  EXPECT_EQ(batch.Get<float>("target"), target);
  EXPECT_EQ(batch.Get<float>("embedding"), embedding);
  EXPECT_EQ(batch.Get<int64_t>("index"), std::vector<int64_t>(kAll.begin(), kAll.end()));
  EXPECT_EQ(batch.Get<char>("text_bytes"), std::vector<char>(text.begin(), text.end()));
  EXPECT_EQ(batch.Get<int64_t>("text_offsets"), text_offsets);
}

TEST_F(GraphBatchTest, Edges_HaveTheOffsetsOfTheirSample) {
  ASSERT_OK_AND_ASSIGN(const auto maker,
                       Maker("graph { tensors: 'edge_index' tensors: 'r' tensors: 'images' tensors: 'distance' "
                             "tensors: 'num_edges' tensors: 'num_nodes' }"));
  const Made batch = Make(maker.get(), kAll);
  std::vector<int64_t> source, destination, num_edges, num_nodes;
  std::vector<int32_t> images;
  std::vector<float> r, distance;
  int64_t nodes = 0;
  for (const uint64_t index : kAll) {
    const CrystalSample& sample = samples_[index];
    for (size_t e = 0; e < sample.source.size(); ++e) {
      source.push_back(sample.source[e] + nodes);
      destination.push_back(sample.destination[e] + nodes);
    }
    store::testing::Append(&images, sample.image);
    store::testing::Append(&r, sample.r);
    store::testing::Append(&distance, sample.distance);
    num_edges.push_back(static_cast<int64_t>(sample.source.size()));
    num_nodes.push_back(static_cast<int64_t>(sample.atomic_number.size()));
    nodes += num_nodes.back();
  }
  std::vector<int64_t> both = source;
  store::testing::Append(&both, destination);
  EXPECT_EQ(batch.Get<int64_t>("edge_index"), both);
  EXPECT_EQ(batch.Get<int32_t>("images"), images);
  EXPECT_EQ(batch.Get<float>("r"), r);
  EXPECT_EQ(batch.Get<float>("distance"), distance);
  EXPECT_EQ(batch.Get<int64_t>("num_edges"), num_edges);
  EXPECT_EQ(batch.Get<int64_t>("num_nodes"), num_nodes);
}

TEST_F(GraphBatchTest, EveryLineGraph_IsThatOfAllPairsOfEdges) {
  const std::map<v1::GraphRecipe::LineGraph, std::string> kinds = {
      {v1::GraphRecipe::DGL, "DGL"}, {v1::GraphRecipe::TORCH, "TORCH"}, {v1::GraphRecipe::M3GNET, "M3GNET"}};
  for (const auto& [kind, name] : kinds) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(const auto maker, Maker(absl::StrCat("graph { line_graph: ", name, " }")));
    const Made batch = Make(maker.get(), kAll);
    std::vector<int64_t> first, second, counts;
    std::vector<float> cosines;
    int64_t edges = 0;
    for (const uint64_t index : kAll) {
      const CrystalSample& sample = samples_[index];
      const auto pairs = Triplets(sample, kind);
      counts.push_back(static_cast<int64_t>(pairs.size()));
      for (const auto& [a, b] : pairs) {
        first.push_back(a + edges);
        second.push_back(b + edges);
        double dot = 0, aa = 0, bb = 0;
        for (int k = 0; k < 3; ++k) {
          dot += double{sample.r[3 * a + k]} * sample.r[3 * b + k];
          aa += double{sample.r[3 * a + k]} * sample.r[3 * a + k];
          bb += double{sample.r[3 * b + k]} * sample.r[3 * b + k];
        }
        const double cosine = (kind == v1::GraphRecipe::M3GNET ? 1 : -1) * dot / std::sqrt(aa * bb);
        cosines.push_back(static_cast<float>(std::clamp(cosine, -1.0, 1.0)));
      }
      edges += static_cast<int64_t>(sample.source.size());
    }
    std::vector<int64_t> both = first;
    store::testing::Append(&both, second);
    EXPECT_EQ(batch.Get<int64_t>("lg_edge_index"), both);
    EXPECT_EQ(batch.Get<int64_t>("num_triplets"), counts);
    const std::vector<float> made = batch.Get<float>("cos");
    ASSERT_EQ(made.size(), cosines.size());
    for (size_t t = 0; t < made.size(); ++t) ASSERT_NEAR(made[t], cosines[t], 5e-7) << t;
  }
}

TEST_F(GraphBatchTest, OneTensorOfTheLineGraph_IsThatOfAll) {
  ASSERT_OK_AND_ASSIGN(const auto all, Maker("graph { line_graph: DGL }"));
  ASSERT_OK_AND_ASSIGN(const auto pairs, Maker("graph { line_graph: DGL tensors: 'lg_edge_index' }"));
  ASSERT_OK_AND_ASSIGN(const auto angles, Maker("graph { line_graph: DGL tensors: 'cos' }"));
  const Made batch = Make(all.get(), kAll);
  EXPECT_EQ(Make(pairs.get(), kAll).Get<int64_t>("lg_edge_index"), batch.Get<int64_t>("lg_edge_index"));
  EXPECT_EQ(Make(angles.get(), kAll).Get<float>("cos"), batch.Get<float>("cos"));
}

TEST_F(GraphBatchTest, AnyCutIntoParts_GivesTheSameBytes) {
  for (const char* recipe : {"", "graph { line_graph: TORCH index_dtype: DTYPE_I32 float_dtype: DTYPE_BF16 }",
                             "graph { tensors: 'rbf' tensors: 'atom_features' tensors: 'text_offsets' }"}) {
    SCOPED_TRACE(recipe);
    ASSERT_OK_AND_ASSIGN(const auto maker, Maker(recipe));
    const Made whole = Make(maker.get(), kAll);
    EXPECT_EQ(Make(maker.get(), kAll, {1, 2, 3, 4, 5, 6, 7}).extent, whole.extent);
    EXPECT_EQ(Make(maker.get(), kAll, {3, 3}).extent, whole.extent);
  }
}

TEST_F(GraphBatchTest, NarrowTypes_AreTheWideOnesRounded) {
  ASSERT_OK_AND_ASSIGN(const auto wide, Maker("graph { line_graph: TORCH }"));
  ASSERT_OK_AND_ASSIGN(const auto narrow,
                       Maker("graph { line_graph: TORCH index_dtype: DTYPE_I32 float_dtype: DTYPE_BF16 }"));
  const Made a = Make(wide.get(), kAll);
  const Made b = Make(narrow.get(), kAll);
  for (const char* name : {"atomic_number", "edge_index", "lg_edge_index", "num_triplets", "batch", "ptr"}) {
    const std::vector<int64_t> want = a.Get<int64_t>(name);
    const std::vector<int32_t> have = b.Get<int32_t>(name);
    EXPECT_EQ(std::vector<int64_t>(have.begin(), have.end()), want) << name;
  }
  for (const char* name : {"x", "r", "cos"}) {
    const std::vector<float> want = a.Get<float>(name);
    const std::vector<uint16_t> have = b.Get<uint16_t>(name);
    ASSERT_EQ(have.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(Bf16(have[i]), want[i], std::abs(want[i]) / 256) << name << i;
  }
}

TEST_F(GraphBatchTest, Rbf_IsGaussiansOfTheDistance) {
  ASSERT_OK_AND_ASSIGN(const auto maker,
                       Maker("graph { tensors: 'rbf' tensors: 'distance' rbf { bins: 5 low: 1 high: 9 gamma: 0.3 } }"));
  const Made batch = Make(maker.get(), {1, 4});
  const std::vector<float> distance = batch.Get<float>("distance");
  const std::vector<float> rbf = batch.Get<float>("rbf");
  ASSERT_EQ(rbf.size(), 5 * distance.size());
  for (size_t i = 0; i < rbf.size(); ++i) {
    const double centre = 1 + 2.0 * static_cast<double>(i % 5);
    const double d = distance[i / 5] - centre;
    ASSERT_NEAR(rbf[i], std::exp(-0.3 * d * d), 1e-6) << i;
  }
}

TEST_F(GraphBatchTest, EmptyBatch_HasTheFirstOffsets) {
  ASSERT_OK_AND_ASSIGN(const auto maker, Maker(""));
  const Made batch = Make(maker.get(), {});
  EXPECT_THAT(batch.Get<int64_t>("ptr"), ElementsAre(0));
  EXPECT_THAT(batch.Get<int64_t>("text_offsets"), ElementsAre(0));
  EXPECT_TRUE(batch.Get<int64_t>("edge_index").empty());
}

TEST_F(GraphBatchTest, ByteCosts_BoundEveryExtent) {
  ASSERT_OK_AND_ASSIGN(const auto maker, Maker(""));
  plan::CostTable costs = maker->costs();
  ASSERT_OK(maker->AddByteCosts(&costs));
  for (const std::vector<uint64_t>& batch : std::vector<std::vector<uint64_t>>{{}, {7}, {4}, kAll}) {
    uint64_t bytes = costs.fixed_bytes;
    for (const uint64_t s : batch) {
      bytes += costs.sample_bytes + costs.node_bytes * costs.nodes[s] + costs.edge_bytes * costs.edges[s] +
               costs.triplet_bytes * costs.triplets[s] + costs.text_bytes[s];
    }
    EXPECT_LE(Make(maker.get(), batch).layout.extent_bytes(), bytes);
  }
}

TEST_F(GraphBatchTest, LargestBatch_IsOfEveryEpoch_NotOfTheOneThatIsOpened) {
  const auto open = [this](bool shuffle, uint64_t nodes, uint64_t epoch) {
    v1::Plan plan;
    plan.set_shuffle(shuffle);
    if (nodes > 0) {
      plan.mutable_budget()->set_nodes(nodes);
    } else {
      plan.set_batch_size(2);
    }
    const char* const recipe = "graph { tensors: 'rbf' rbf { bins: 80 high: 8 } }";  // so large that extents differ
    return PlannedBatches::Create(Maker(recipe).value(), plan::CompletePlan(plan).value(), epoch).value();
  };
  for (const uint64_t nodes : {0, 42}) {
    const auto batches = open(true, nodes, /*epoch=*/0);
    uint64_t least = UINT64_MAX, most = 0;  // of what opening there would measure
    for (uint64_t epoch = 0; epoch < 50; ++epoch) {
      const uint64_t measured = open(true, nodes, epoch)->full_batch_bytes();
      least = std::min(least, measured), most = std::max(most, measured);
    }
    EXPECT_LT(least, most);
    EXPECT_GE(batches->largest()[plan::kBytes], most);
    EXPECT_EQ(open(true, nodes, 17)->largest(), batches->largest());
  }
  const auto in_order = open(false, 0, 0);
  EXPECT_EQ(in_order->largest()[plan::kBytes], in_order->full_batch_bytes());
  EXPECT_EQ(in_order->largest()[plan::kGraphs], 2u);
}

TEST_F(GraphBatchTest, TensorThatCannotBeHad_IsInvalidArgumentThatNamesIt) {
  const auto invalid = [](const char* a, const char* b) {
    return StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(a), HasSubstr(b)));
  };
  EXPECT_THAT(Maker("graph { tensors: 'edges' }"), invalid("recipe.graph.tensors: there is no edges", "edge_index"));
  EXPECT_THAT(Maker("graph { tensors: 'r' tensors: 'r' }"), invalid("recipe.graph.tensors", "r is there twice"));
  EXPECT_THAT(Maker("graph { tensors: 'cos' line_graph: NO_LINE_GRAPH }"), invalid("tensors: cos", "no line graph"));
  EXPECT_THAT(Maker("graph { rbf { bins: 3 } }"), invalid("recipe.graph.rbf", "tensor rbf"));
  EXPECT_THAT(Maker("graph { tensors: 'rbf' rbf { bins: 1 } }"), invalid("recipe.graph.rbf.bins: 1", "[2, 1024]"));
  EXPECT_THAT(Maker("graph { tensors: 'rbf' rbf { low: 9 } }"), invalid("recipe.graph.rbf.high", "no interval"));
  EXPECT_THAT(Maker("graph { float_dtype: DTYPE_U8 }"), invalid("recipe.graph.float_dtype", "DTYPE_U8"));
  EXPECT_THAT(Maker("graph { index_dtype: DTYPE_F32 }"), invalid("recipe.graph.index_dtype", "DTYPE_F32"));
  EXPECT_THAT(Maker("gaf {}"), invalid("recipe", "CRYSTALS"));
}

TEST_F(GraphBatchTest, RecipesThatMeanTheSame_HaveEqualDigests) {
  ASSERT_OK_AND_ASSIGN(const auto a, Maker("graph { tensors: 'r' tensors: 'edge_index' }"));
  ASSERT_OK_AND_ASSIGN(const auto b,
                       Maker("graph { tensors: 'edge_index' tensors: 'index' tensors: 'r' index_dtype: DTYPE_I64 }"));
  EXPECT_EQ(Digest(a->recipe()), Digest(b->recipe()));
}

// A shard that is not what ingest writes costs the batch, not the worker.
TEST_F(GraphBatchTest, HostileShard_IsDataLossThatNamesTheSample) {
  struct Case {
    const char* what;
    void (*spoil)(CrystalSample*);
  };
  const Case cases[] = {
      {"no atom", [](CrystalSample* s) { s->destination[1] = 3; }},
      {"no atom", [](CrystalSample* s) { s->destination[1] = -1; }},
      {"not in its place", [](CrystalSample* s) { s->source[2] = 0, s->source[1] = 1; }},
      {"not in its place", [](CrystalSample* s) { s->source[5] = 77; }},
      {"edge 0 is not in its place", [](CrystalSample* s) { s->source[0] = -1; }},
      {"edge 5 is not in its place", [](CrystalSample* s) { s->source[5] = std::numeric_limits<int32_t>::min(); }},
      {"more triplets than edges", [](CrystalSample* s) { s->triplet_degree[0] = 3; }},
      {"more triplets than edges", [](CrystalSample* s) { s->triplet_degree[0] = -1; }},
      {"the store's table says", [](CrystalSample* s) { s->triplet_degree[0] = 1; }},
  };
  for (const Case& spoiled : cases) {
    SCOPED_TRACE(spoiled.what);
    CrystalSample sample = Chain(3, "bad");
    spoiled.spoil(&sample);
    store::testing::WriteCrystalStore(dir(), {{sample}});
    ASSERT_OK_AND_ASSIGN(const auto maker, Maker(""));
    const Counts total = {1, 3, 6, 12, 10};
    ASSERT_OK_AND_ASSIGN(const tensor::Layout layout, tensor::Layout::Create(maker->TensorsFor(total).value()));
    std::vector<uint8_t> extent(layout.extent_bytes());
    const std::vector<uint64_t> samples = {0};
    EXPECT_THAT(maker->WritePart(samples, {}, total, absl::MakeSpan(extent)),
                StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(spoiled.what), HasSubstr("bad (/data"))));
  }
}

}  // namespace
}  // namespace stoker::batch
