// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/transforms/neighbours.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/transforms/all_pairs.h"
#include "tests/unit/transforms/crystals.h"

namespace stoker::transforms {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using v1::GraphRecipe;

constexpr GraphRecipe::LineGraph kKinds[] = {GraphRecipe::DGL, GraphRecipe::TORCH, GraphRecipe::M3GNET};

struct Written {
  std::vector<uint8_t> first, second, cosines;
  friend bool operator==(const Written&, const Written&) = default;
};

// Between guards, which must stay as they are.
Written Write(LineGraph* graph, v1::DType index, v1::DType real, int64_t offset) {
  constexpr size_t kGuard = 256;
  const size_t index_size = index == v1::DTYPE_I32 ? 4 : 8, real_size = real == v1::DTYPE_F32 ? 4 : 2;
  const auto triplets = static_cast<size_t>(graph->triplets());
  std::vector<uint8_t> first(triplets * index_size + kGuard, 0xa5), second = first;
  std::vector<uint8_t> cosines(triplets * real_size + kGuard, 0xa5);
  graph->Write(index, offset, real, first.data(), second.data(), cosines.data());
  LineGraph::Flush();
  for (std::vector<uint8_t>* out : {&first, &second, &cosines}) {
    EXPECT_THAT(std::vector<uint8_t>(out->end() - kGuard, out->end()), Each(0xa5));
    out->resize(out->size() - kGuard);
  }
  return {first, second, cosines};
}

template <typename T>
std::vector<T> As(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// By looking at all pairs of edges.
std::vector<std::pair<int64_t, int64_t>> AllTriplets(GraphRecipe::LineGraph kind, const NeighbourList& list) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  const auto active = [&](int64_t e) { return e - list.offset[list.source[e]] < list.triplet_degree[list.source[e]]; };
  for (int64_t a = 0; a < list.edges(); ++a) {
    const int32_t middle = kind == GraphRecipe::M3GNET ? list.source[a] : list.destination[a];
    for (int64_t b = list.offset[middle]; b < list.offset[middle + 1]; ++b) {
      if (active(a) && active(b) && (a != b || kind == GraphRecipe::TORCH)) pairs.emplace_back(a, b);
    }
  }
  return pairs;
}

double CosineOf(GraphRecipe::LineGraph kind, const NeighbourList& list, int64_t a, int64_t b) {
  Vector3 x, y;
  for (int64_t k = 0; k < 3; ++k) x[k] = list.r[3 * a + k], y[k] = list.r[3 * b + k];
  return (kind == GraphRecipe::M3GNET ? 1 : -1) * Dot(x, y) / (Length(x) * Length(y));
}

std::vector<NeighbourOptions> Rules() {
  return {{}, {.graph = v1::IngestOptions::Crystal::RADIUS, .cutoff = 5, .triplet_cutoff = 4.2}};
}

void Assign(LineGraph* graph, GraphRecipe::LineGraph kind, const NeighbourList& list) {
  graph->Assign(kind, list.offset, list.destination, list.triplet_degree, list.r);
}

TEST(LineGraph, EveryKind_HasThePairsOfEdgesThatShareAnAtomAndTheirCosines) {
  LineGraph graph;
  for (const NeighbourOptions& options : Rules()) {
    NeighbourFinder finder = *NeighbourFinder::Create(options);
    for (const Made& made : Crystals()) {
      ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
      for (const GraphRecipe::LineGraph kind : kKinds) {
        SCOPED_TRACE(absl::StrCat(made.name, ", kind ", kind));
        Assign(&graph, kind, list);
        const auto wanted = AllTriplets(kind, list);
        ASSERT_EQ(graph.triplets(), static_cast<int64_t>(wanted.size()));
        const Written written = Write(&graph, v1::DTYPE_I64, v1::DTYPE_F32, 1000);
        const auto first = As<int64_t>(written.first), second = As<int64_t>(written.second);
        const auto cosines = As<float>(written.cosines);
        for (size_t t = 0; t < wanted.size(); ++t) {
          ASSERT_EQ(first[t], wanted[t].first + 1000);
          ASSERT_EQ(second[t], wanted[t].second + 1000);
          ASSERT_NEAR(cosines[t], CosineOf(kind, list, wanted[t].first, wanted[t].second), 1e-6);
          ASSERT_LE(std::abs(cosines[t]), 1.0f);
        }
      }
    }
  }
}

// With d(i) edges from atom i and their reverses there: torch and M3GNet pair each of the d(i) edges that meet atom i
// with each that leaves it; DGL and M3GNet leave an edge and itself out. An edge that is its own partner ends where it
// begins.
TEST(LineGraph, Counts_FollowFromTheDegrees) {
  LineGraph graph;
  NeighbourFinder finder = *NeighbourFinder::Create({});
  for (const Made& made : Crystals()) {
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    int64_t squares = 0, loops = 0;
    for (int64_t i = 0; i < made.atoms(); ++i) {
      const int64_t degree = list.offset[i + 1] - list.offset[i];
      squares += degree * degree;
    }
    for (int64_t e = 0; e < list.edges(); ++e) loops += list.source[e] == list.destination[e] ? 1 : 0;
    Assign(&graph, GraphRecipe::TORCH, list);
    EXPECT_EQ(graph.triplets(), squares) << made.name;
    Assign(&graph, GraphRecipe::DGL, list);
    EXPECT_EQ(graph.triplets(), squares - loops) << made.name;
    Assign(&graph, GraphRecipe::M3GNET, list);
    EXPECT_EQ(graph.triplets(), squares - list.edges()) << made.name;
  }
}

// `bytes` from the `place`-th of a cache line on, with guards on both sides.
class Placed {
 public:
  Placed(size_t bytes, size_t place) : memory_(bytes + 4 * kLine, 0xa5), bytes_(bytes) {
    const size_t line = kLine - reinterpret_cast<uintptr_t>(memory_.data()) % kLine;
    begin_ = line + place;
  }
  uint8_t* data() { return memory_.data() + begin_; }
  bool Holds(const std::vector<uint8_t>& wanted) const {
    std::vector<uint8_t> all(memory_.size(), 0xa5);
    std::copy(wanted.begin(), wanted.end(), all.begin() + static_cast<ptrdiff_t>(begin_));
    return wanted.size() == bytes_ && memory_ == all;
  }

 private:
  static constexpr size_t kLine = 64;
  std::vector<uint8_t> memory_;
  size_t bytes_, begin_;
};

// Whole cache lines are written in another way than what comes before and after them.
TEST(LineGraph, ColumnsAtAnyPlaceInACacheLine_AreWrittenAndNothingElse) {
  NeighbourFinder finder = *NeighbourFinder::Create(Rules()[0]);
  for (const Made& made : Crystals()) {
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    LineGraph graph;
    Assign(&graph, GraphRecipe::DGL, list);
    for (const v1::DType index : {v1::DTYPE_I32, v1::DTYPE_I64}) {
      const v1::DType real = index == v1::DTYPE_I32 ? v1::DTYPE_BF16 : v1::DTYPE_F32;
      const size_t index_size = index == v1::DTYPE_I32 ? 4 : 8, real_size = real == v1::DTYPE_F32 ? 4 : 2;
      const Written wanted = Write(&graph, index, real, 7);
      for (size_t place = 0; place < 64 / real_size; ++place) {
        Placed first(wanted.first.size(), place * index_size % 64);
        Placed second(wanted.second.size(), (5 * place + 3) * index_size % 64);
        Placed cosines(wanted.cosines.size(), place * real_size);
        graph.Write(index, 7, real, first.data(), second.data(), cosines.data());
        LineGraph::Flush();
        ASSERT_TRUE(first.Holds(wanted.first)) << made.name << ", place " << place;
        ASSERT_TRUE(second.Holds(wanted.second)) << made.name << ", place " << place;
        ASSERT_TRUE(cosines.Holds(wanted.cosines)) << made.name << ", place " << place;
      }
    }
  }
}

TEST(LineGraph, ColumnsThatAreNotAskedFor_AreLeftOut) {
  NeighbourFinder finder = *NeighbourFinder::Create({});
  const Made made = Crystals().back();
  ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
  LineGraph graph;
  Assign(&graph, GraphRecipe::TORCH, list);
  const Written wanted = Write(&graph, v1::DTYPE_I64, v1::DTYPE_F32, 3);
  Written written = {std::vector<uint8_t>(wanted.first.size()), std::vector<uint8_t>(wanted.second.size()),
                     std::vector<uint8_t>(wanted.cosines.size())};
  graph.Write(v1::DTYPE_I64, 3, v1::DTYPE_F32, written.first.data(), written.second.data(), nullptr);
  graph.Write(v1::DTYPE_I64, 3, v1::DTYPE_F32, nullptr, nullptr, written.cosines.data());
  graph.Write(v1::DTYPE_I64, 3, v1::DTYPE_F32, nullptr, nullptr, nullptr);
  LineGraph::Flush();
  EXPECT_TRUE(written == wanted);
}

// Runs of every length, and an edge that is left out at every place of them.
TEST(LineGraph, AnyDegree_HasAllPairs) {
  for (int32_t degree = 1; degree <= 50; ++degree) {
    NeighbourList list;  // atom 0 has edges to itself and to atom 1 in turns, atom 1 has one edge back
    std::vector<int32_t> source(degree, 0), destination, degrees = {degree, 1};
    std::vector<float> r;
    for (int32_t e = 0; e < degree; ++e) destination.push_back(e % 2);
    source.push_back(1), destination.push_back(0);
    for (int32_t e = 0; e <= degree; ++e) r.insert(r.end(), {1.0f + static_cast<float>(e), 1, -2});
    const std::vector<int64_t> offset = {0, degree, degree + 1};
    list.source = source, list.destination = destination, list.r = r, list.offset = offset;
    list.triplet_degree = degrees;
    for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
      for (const GraphRecipe::LineGraph kind : kKinds) {
        SCOPED_TRACE(absl::StrCat(std::string(kernels->name), ", degree ", degree, ", kind ", kind));
        LineGraph graph(kernels);
        Assign(&graph, kind, list);
        std::vector<int64_t> first, second;
        for (const auto& [a, b] : AllTriplets(kind, list)) first.push_back(a), second.push_back(b);
        ASSERT_EQ(graph.triplets(), static_cast<int64_t>(first.size()));
        const Written written = Write(&graph, v1::DTYPE_I64, v1::DTYPE_F16, 0);
        ASSERT_EQ(As<int64_t>(written.first), first);
        ASSERT_EQ(As<int64_t>(written.second), second);
      }
    }
  }
}

TEST(LineGraph, EveryPathAndType_GivesTheSameBytes) {
  NeighbourFinder finder = *NeighbourFinder::Create(Rules()[0]);
  for (const Made& made : Crystals()) {
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    for (const GraphRecipe::LineGraph kind : kKinds) {
      LineGraph best;
      Assign(&best, kind, list);
      for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
        SCOPED_TRACE(kernels->name);
        LineGraph graph(kernels);
        Assign(&graph, kind, list);
        for (const v1::DType index : {v1::DTYPE_I32, v1::DTYPE_I64}) {
          for (const v1::DType real : {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16}) {
            EXPECT_TRUE(Write(&graph, index, real, 17) == Write(&best, index, real, 17));
          }
        }
        const Written narrow = Write(&graph, v1::DTYPE_I32, v1::DTYPE_F32, 17);
        const Written wide = Write(&graph, v1::DTYPE_I64, v1::DTYPE_F32, 17);
        const auto as32 = As<int32_t>(narrow.second);
        EXPECT_EQ(std::vector<int64_t>(as32.begin(), as32.end()), As<int64_t>(wide.second));
      }
    }
  }
}

TEST(LineGraph, EdgeOfNoLength_HasCosineZero) {
  LineGraph graph;
  const std::vector<int64_t> bucket = {0, 2, 3};
  const std::vector<int32_t> destination = {1, 1, 0}, degree = {2, 1};
  const std::vector<float> r = {0, 0, 0, 1, 0, 0, -2, 0, 0};
  graph.Assign(GraphRecipe::DGL, bucket, destination, degree, r);
  const Written written = Write(&graph, v1::DTYPE_I64, v1::DTYPE_F32, 0);
  EXPECT_THAT(As<int64_t>(written.first), ElementsAre(0, 1, 2, 2));
  EXPECT_THAT(As<int64_t>(written.second), ElementsAre(2, 2, 0, 1));
  EXPECT_THAT(As<float>(written.cosines), ElementsAre(0, 1, 0, 1));
}

TEST(LineGraph, RunLongerThanAGroup_IsWrittenWhole) {
  constexpr int32_t kEdges = 3001;  // of one atom, to itself
  std::vector<int32_t> destination(kEdges, 0);
  std::vector<float> r(3 * kEdges);
  for (int32_t e = 0; e < kEdges; ++e) r[3 * e] = 1 + static_cast<float>(e), r[3 * e + 1] = 1;
  const std::vector<int64_t> bucket = {0, kEdges};
  const std::vector<int32_t> degree = {kEdges};
  LineGraph graph;
  graph.Assign(GraphRecipe::TORCH, bucket, destination, degree, r);
  ASSERT_EQ(graph.triplets(), int64_t{kEdges} * kEdges);
  const std::vector<int32_t> second = As<int32_t>(Write(&graph, v1::DTYPE_I32, v1::DTYPE_BF16, 0).second);
  for (size_t t = 0; t < second.size(); ++t) ASSERT_EQ(second[t], static_cast<int32_t>(t % kEdges));
}

TEST(LineGraph, NoEdges_WritesNothing) {
  LineGraph graph;
  const std::vector<int64_t> bucket = {0, 0};
  const std::vector<int32_t> degree = {0};
  graph.Assign(GraphRecipe::DGL, bucket, {}, degree, {});
  EXPECT_EQ(graph.triplets(), 0);
  Write(&graph, v1::DTYPE_I64, v1::DTYPE_F16, 5);
}

}  // namespace
}  // namespace stoker::transforms
