// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/neighbours.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/transforms/crystal_kernels.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/transforms/all_pairs.h"
#include "tests/unit/transforms/crystals.h"

namespace stoker::transforms {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Graph = v1::IngestOptions::Crystal;

NeighbourFinder Finder(const NeighbourOptions& options, const std::string& path = "") {
  absl::StatusOr<NeighbourFinder> finder = NeighbourFinder::Create(options, path);
  EXPECT_OK(finder);
  return *std::move(finder);
}

// Rules whose result does not hang on the order of equally far atoms.
std::vector<NeighbourOptions> Rules() {
  return {{},
          {.k = 5, .directed = true},
          {.graph = Graph::RADIUS, .cutoff = 5.3},
          {.graph = Graph::RADIUS, .cutoff = 6.1, .max_neighbors = 9}};
}

std::vector<Edge> EdgesOf(const NeighbourOptions& options, const Made& made) {
  NeighbourFinder finder = Finder(options);
  const absl::StatusOr<NeighbourList> list = finder.Find(made.view());
  EXPECT_OK(list);
  return list.ok() ? SortedEdges(*list) : std::vector<Edge>{};
}

// Calls test(rule, crystal) for all of both.
template <typename Test>
void ForEachCase(Test test) {
  for (const NeighbourOptions& options : Rules()) {
    for (const Made& made : Crystals()) {
      SCOPED_TRACE(absl::StrCat(made.name, ", rule ", options.graph, ", k ", options.k));
      test(options, made);
    }
  }
}

template <typename T>
std::string Bytes(absl::Span<const T> span) {
  return std::string(reinterpret_cast<const char*>(span.data()), span.size() * sizeof(T));
}

std::string Bytes(const NeighbourList& list) {
  return absl::StrCat(Bytes(list.offset), Bytes(list.source), Bytes(list.destination), Bytes(list.image), Bytes(list.r),
                      Bytes(list.distance), Bytes(list.triplet_degree), list.close_pairs);
}

TEST(NeighbourFinder, EveryPath_GivesTheSameBytes) {
  std::vector<NeighbourOptions> rules = Rules();
  rules.push_back({.graph = Graph::CGCNN, .k = 7, .cutoff = 4});
  rules.push_back({.graph = Graph::ALIGNN});
  for (const NeighbourOptions& options : rules) {
    NeighbourFinder best = Finder(options);
    for (const std::string& path : CrystalPaths()) {
      NeighbourFinder finder = Finder(options, path);
      for (const Made& made : Crystals()) {
        if (options.graph == Graph::ALIGNN && made.periodic != std::array<bool, 3>{true, true, true}) continue;
        ASSERT_OK_AND_ASSIGN(const NeighbourList wanted, best.Find(made.view()));
        ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
        EXPECT_GT(list.edges(), 0);
        EXPECT_TRUE(Bytes(list) == Bytes(wanted)) << path << " " << made.name;
      }
    }
  }
}

TEST(NeighbourFinder, EveryRule_FindsWhatASearchOverAllImagesFinds) {
  ForEachCase([](const NeighbourOptions& options, const Made& made) {
    const auto k = static_cast<size_t>(options.graph == Graph::KNN ? options.k : options.max_neighbors);
    std::set<Edge> wanted;
    for (int64_t i = 0; i < made.atoms(); ++i) {
      const std::vector<Pair> pairs = PairsOf(made.view(), i, options.graph == Graph::KNN ? 9.5 : options.cutoff);
      double limit = k > 0 && pairs.size() >= k ? pairs[k - 1].distance + options.tolerance : 1e9;
      for (const Pair& pair : pairs) {
        if (pair.distance > limit) break;
        wanted.insert(pair.edge);
        if (options.graph == Graph::KNN && !options.directed) wanted.insert(Reversed(pair.edge));
      }
    }
    EXPECT_TRUE(EdgesOf(options, made) == std::vector<Edge>(wanted.begin(), wanted.end()));
  });
}

TEST(NeighbourFinder, Edges_AreSortedAndAsLongAsTheyAre) {
  ForEachCase([](const NeighbourOptions& options, const Made& made) {
    NeighbourFinder finder = Finder(options);
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    ASSERT_EQ(list.offset.size(), static_cast<size_t>(made.atoms()) + 1);
    EXPECT_EQ(list.offset.back(), list.edges());
    EXPECT_EQ(list.close_pairs, 0);
    for (int64_t e = 0; e < list.edges(); ++e) {
      const Edge edge = EdgeAt(list, e);
      ASSERT_GE(e, list.offset[edge[0]]);
      ASSERT_LT(e, list.offset[edge[0] + 1]);
      const bool first = e == list.offset[edge[0]];
      ASSERT_TRUE(first || list.distance[e - 1] <= list.distance[e]);
      Vector3 fraction;
      for (int64_t a = 0; a < 3; ++a) {
        fraction[a] =
            made.fraction[3 * edge[1] + a] + static_cast<double>(edge[2 + a]) - made.fraction[3 * edge[0] + a];
      }
      const Vector3 r = made.view().IsMolecule() ? fraction : TimesMatrix(fraction, made.lattice);
      for (int64_t a = 0; a < 3; ++a) ASSERT_NEAR(list.r[3 * e + a], r[a], 2e-6);
      ASSERT_NEAR(list.distance[e], Length(r), 2e-6);
    }
  });
}

TEST(NeighbourFinder, EveryAtom_HasAtLeastKEdges) {
  for (const bool directed : {false, true}) {
    NeighbourFinder finder = Finder({.k = 12, .directed = directed});
    for (const Made& made : Crystals()) {
      ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
      const int64_t k = made.view().IsMolecule() ? made.atoms() - 1 : 12;
      for (int64_t i = 0; i < made.atoms(); ++i) EXPECT_GE(list.offset[i + 1] - list.offset[i], k) << made.name;
    }
  }
}

TEST(NeighbourFinder, UndirectedEdges_HaveAReverseOfExactlyOppositeR) {
  for (const NeighbourOptions& options : {NeighbourOptions{}, {.graph = Graph::RADIUS, .cutoff = 6}}) {
    NeighbourFinder finder = Finder(options);
    for (const Made& made : Crystals()) {
      ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
      std::map<Edge, int64_t> at;
      for (int64_t e = 0; e < list.edges(); ++e) EXPECT_TRUE(at.emplace(EdgeAt(list, e), e).second) << made.name;
      for (const auto& [edge, e] : at) {
        const auto reverse = at.find(Reversed(edge));
        ASSERT_NE(reverse, at.end()) << made.name;
        for (int64_t a = 0; a < 3; ++a) ASSERT_EQ(list.r[3 * e + a], -list.r[3 * reverse->second + a]);
        ASSERT_EQ(list.distance[e], list.distance[reverse->second]);
      }
    }
  }
}

TEST(NeighbourFinder, Rotation_LeavesTheEdges) {
  const double c = std::cos(0.7), s = std::sin(0.7), c2 = std::cos(2.1), s2 = std::sin(2.1);
  const Matrix3 turn = {{{c, s * c2, s * s2}, {-s, c * c2, c * s2}, {0, -s2, c2}}};
  ForEachCase([&](const NeighbourOptions& options, const Made& made) {
    Made turned = made;
    for (Vector3& row : turned.lattice) row = TimesMatrix(row, turn);
    for (int64_t i = 0; made.view().IsMolecule() && i < made.atoms(); ++i) {
      double* const f = &turned.fraction[3 * i];
      const Vector3 point = TimesMatrix({f[0], f[1], f[2]}, turn);
      std::copy(point.begin(), point.end(), f);
    }
    EXPECT_TRUE(EdgesOf(options, turned) == EdgesOf(options, made));
  });
}

TEST(NeighbourFinder, Translation_LeavesTheEdges) {
  ForEachCase([](const NeighbourOptions& options, const Made& made) {
    Made moved = made;
    for (size_t i = 0; i < moved.fraction.size(); ++i) moved.fraction[i] += std::array{0.613, -0.271, 3.337}[i % 3];
    EXPECT_TRUE(EdgesOf(options, moved) == EdgesOf(options, made));
  });
}

TEST(NeighbourFinder, CoordinatesInOtherCells_LeaveTheEdgesButForTheImages) {
  ForEachCase([](const NeighbourOptions& options, const Made& made) {
    Made moved = made;
    const auto cells = [&](int64_t atom, size_t a) -> int64_t {
      return made.periodic[a] ? (atom * 7 + static_cast<int64_t>(a) * 3) % 9 - 4 : 0;
    };
    for (size_t i = 0; i < moved.fraction.size(); ++i) {
      moved.fraction[i] += static_cast<double>(cells(static_cast<int64_t>(i / 3), i % 3));
    }
    std::vector<Edge> edges = EdgesOf(options, moved);
    for (Edge& edge : edges) {
      for (size_t a = 0; a < 3; ++a) edge[2 + a] += cells(edge[1], a) - cells(edge[0], a);
    }
    std::sort(edges.begin(), edges.end());
    EXPECT_TRUE(edges == EdgesOf(options, made));
  });
}

TEST(NeighbourFinder, Permutation_LeavesTheEdgesButForTheNumbers) {
  ForEachCase([](const NeighbourOptions& options, const Made& made) {
    std::vector<int64_t> from(made.atoms());
    std::iota(from.begin(), from.end(), 0);
    std::shuffle(from.begin(), from.end(), std::mt19937(11));
    Made shuffled = made;
    for (int64_t i = 0; i < made.atoms(); ++i) std::copy_n(&made.fraction[3 * from[i]], 3, &shuffled.fraction[3 * i]);
    std::vector<Edge> edges = EdgesOf(options, shuffled);
    for (Edge& edge : edges) edge[0] = from[edge[0]], edge[1] = from[edge[1]];
    std::sort(edges.begin(), edges.end());
    EXPECT_TRUE(edges == EdgesOf(options, made));
  });
}

// Copy (x, y, z) of atom i is atom ((x * 3 + y) * 2 + z) * atoms + i of 2 x 3 x 2 cells.
TEST(NeighbourFinder, Supercell_HasTheEdgesOfEachCopy) {
  const std::array<int64_t, 3> cells = {2, 3, 2};
  ForEachCase([&](const NeighbourOptions& options, const Made& made) {
    if (made.periodic != std::array<bool, 3>{true, true, true}) return;
    Made super = made;
    super.fraction.clear();
    for (size_t a = 0; a < 3; ++a) {
      for (double& component : super.lattice[a]) component *= static_cast<double>(cells[a]);
    }
    for (int64_t copy = 0; copy < 12; ++copy) {
      const std::array<int64_t, 3> at = {copy / 6, copy / 2 % 3, copy % 2};
      for (size_t c = 0; c < made.fraction.size(); ++c) {
        super.fraction.push_back((made.fraction[c] + static_cast<double>(at[c % 3])) /
                                 static_cast<double>(cells[c % 3]));
      }
    }
    std::vector<Edge> wanted;
    for (const Edge& edge : EdgesOf(options, made)) {
      for (int64_t copy = 0; copy < 12; ++copy) {
        const std::array<int64_t, 3> at = {copy / 6, copy / 2 % 3, copy % 2};
        std::array<int64_t, 3> image, in;
        for (size_t a = 0; a < 3; ++a) {
          const int64_t cell = at[a] + edge[2 + a];
          image[a] = (cell - ((cell % cells[a] + cells[a]) % cells[a])) / cells[a];
          in[a] = cell - image[a] * cells[a];
        }
        const int64_t other = (in[0] * 3 + in[1]) * 2 + in[2];
        wanted.push_back({copy * made.atoms() + edge[0], other * made.atoms() + edge[1], image[0], image[1], image[2]});
      }
    }
    std::sort(wanted.begin(), wanted.end());
    EXPECT_TRUE(EdgesOf(options, super) == wanted);
  });
}

TEST(NeighbourFinder, TenThousandAtoms_AreSearchedInBlocks) {
  const Made made = Scattered("large", {{{60, 0, 0}, {9, 58, 0}, {-4, 6, 63}}}, 22, 10000, 6);
  for (const NeighbourOptions& options : {NeighbourOptions{.directed = true}, {.graph = Graph::RADIUS, .cutoff = 5}}) {
    NeighbourFinder finder = Finder(options);
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    for (const int64_t i : {int64_t{0}, int64_t{21}, int64_t{4321}, int64_t{9999}}) {
      std::vector<Pair> pairs = PairsOf(made.view(), i, options.graph == Graph::KNN ? 10 : options.cutoff);
      if (options.graph == Graph::KNN) {
        ASSERT_GT(pairs.size(), 12u);
        std::erase_if(pairs,
                      [limit = pairs[11].distance + options.tolerance](const Pair& p) { return p.distance > limit; });
      }
      ASSERT_EQ(list.offset[i + 1] - list.offset[i], static_cast<int64_t>(pairs.size()));
      std::set<Edge> wanted, found;
      for (const Pair& pair : pairs) wanted.insert(pair.edge);
      for (int64_t e = list.offset[i]; e < list.offset[i + 1]; ++e) found.insert(EdgeAt(list, e));
      EXPECT_EQ(found, wanted);
    }
  }
}

TEST(NeighbourFinder, NoNeighbours_IsNoError) {
  const Made lonely{"lonely", {{{30, 0, 0}, {0, 30, 0}, {0, 0, 30}}}, {0.1, 0.2, 0.3}};
  NeighbourFinder radius = Finder({.graph = Graph::RADIUS, .cutoff = 5});
  ASSERT_OK_AND_ASSIGN(const NeighbourList none, radius.Find(lonely.view()));
  EXPECT_EQ(none.edges(), 0);
  EXPECT_THAT(none.offset, ElementsAre(0, 0));
  EXPECT_THAT(none.triplet_degree, ElementsAre(0));
  const Made atom{"atom", {}, {1, 2, 3}, {false, false, false}};
  NeighbourFinder nearest = Finder({});
  ASSERT_OK_AND_ASSIGN(const NeighbourList alone, nearest.Find(atom.view()));
  EXPECT_EQ(alone.edges(), 0);
  ASSERT_OK_AND_ASSIGN(const NeighbourList images, nearest.Find(lonely.view()));
  EXPECT_EQ(images.edges(), 18);  // 6 at 30 Å, then the shell of 12
}

TEST(NeighbourFinder, Cgcnn_FillsTheRowsUp) {
  const Made pair{"pair", {{{30, 0, 0}, {0, 30, 0}, {0, 0, 30}}}, {0.1, 0.1, 0.1, 0.2, 0.1, 0.1}};
  NeighbourFinder finder = Finder({.graph = Graph::CGCNN, .k = 3, .cutoff = 4});
  ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(pair.view()));
  EXPECT_THAT(list.source, ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_THAT(list.destination, ElementsAre(1, 0, 0, 0, 0, 0));
  EXPECT_THAT(list.distance, ElementsAre(3, 5, 5, 3, 5, 5));
  EXPECT_THAT(list.r.subspan(6), ElementsAre(5, 0, 0, -3, 0, 0, 5, 0, 0, 5, 0, 0));
  EXPECT_THAT(list.image, Each(0));
}

TEST(NeighbourFinder, TripletCutoff_CountsTheFirstEdges) {
  NeighbourFinder finder = Finder({.graph = Graph::RADIUS, .cutoff = 6, .triplet_cutoff = 4});
  for (const Made& made : Crystals()) {
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    for (int64_t i = 0; i < made.atoms(); ++i) {
      const auto distances = list.distance.subspan(list.offset[i], list.offset[i + 1] - list.offset[i]);
      EXPECT_EQ(list.triplet_degree[i],
                std::count_if(distances.begin(), distances.end(), [](float d) { return d <= 4; }));
    }
  }
}

TEST(NeighbourFinder, ClosePairs_AreCountedOnce) {
  const Made made{"close", {{{9, 0, 0}, {0, 9, 0}, {0, 0, 9}}}, {0, 0, 0, 0.04, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.54}};
  for (const NeighbourOptions& options : {NeighbourOptions{}, {.k = 1}, {.graph = Graph::RADIUS, .cutoff = 0.2}}) {
    NeighbourFinder finder = Finder(options);
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(made.view()));
    EXPECT_EQ(list.close_pairs, 2);
  }
}

TEST(NeighbourFinder, FinderUsedBefore_GivesTheSameBytes) {
  NeighbourFinder used = Finder({});
  const std::vector<Made> crystals = Crystals();
  for (int round = 0; round < 2; ++round) {
    for (auto made = crystals.rbegin(); made != crystals.rend(); ++made) {
      NeighbourFinder fresh = Finder({});
      ASSERT_OK_AND_ASSIGN(const NeighbourList wanted, fresh.Find(made->view()));
      ASSERT_OK_AND_ASSIGN(const NeighbourList list, used.Find(made->view()));
      EXPECT_TRUE(Bytes(list) == Bytes(wanted)) << made->name;
      Made broken = *made;
      broken.fraction[0] = std::nan("");
      EXPECT_THAT(used.Find(broken.view()), StatusIs(absl::StatusCode::kInvalidArgument));
    }
  }
}

TEST(NeighbourFinder, BadStructures_AreRefusedWithTheReason) {
  const Made good = Crystals()[2];
  NeighbourFinder finder = Finder({});
  const auto expect = [&](auto change, const std::string& reason) {
    Made bad = good;
    change(&bad);
    EXPECT_THAT(finder.Find(bad.view()), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)));
  };
  const double inf = std::numeric_limits<double>::infinity();
  expect([](Made* m) { m->fraction.clear(); }, "0 coordinates");
  expect([](Made* m) { m->fraction.pop_back(); }, "5 coordinates");
  expect([](Made* m) { m->fraction[4] = std::nan(""); }, "atom 2: coordinate nan");
  expect([&](Made* m) { m->fraction[0] = -inf; }, "atom 1: coordinate -inf");
  expect([&](Made* m) { m->lattice[1][2] = inf; }, "lattice: not finite");
  expect([](Made* m) { m->lattice[1][2] = std::nan(""); }, "lattice: not finite");
  expect([](Made* m) { m->lattice[2] = m->lattice[1]; }, "span no volume");
  expect([](Made* m) { m->lattice = {}; }, "span no volume");
  expect([](Made* m) { m->fraction = {0, 0, 0, 1, 2, -3}; }, "atoms 1 and 2 are on the same spot");
  expect([](Made* m) { m->lattice = {{{1e-4, 0, 0}, {0, 1e-4, 0}, {0, 0, 1e-4}}}; }, "");
}

TEST(NeighbourFinder, Alignn_RefusesWhatIsNotPeriodic) {
  NeighbourFinder finder = Finder({.graph = Graph::ALIGNN});
  EXPECT_THAT(finder.Find(Crystals().back().view()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("periodic in three directions")));
}

// Distances as they come in crystals: alone, in shells of equal ones, all in one place, at the limit.
TEST(CrystalKernels, SortedKeys_AreThoseOfTheStandardLibrary) {
  constexpr float kLimit = 8.0f;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> anywhere(0, kLimit);
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) {
    for (const size_t count : {1, 2, 3, 7, 8, 9, 64, 65, 200, 1000}) {
      for (const int shells : {0, 1, 2, 11}) {
        SCOPED_TRACE(absl::StrCat(absl::string_view(kernels->name.data(), kernels->name.size()), ", ", count, " keys, ",
                                  shells, " shells"));
        std::vector<uint64_t> keys;
        for (size_t i = 0; i < count; ++i) {
          const float distance = shells == 0 ? anywhere(random) : kLimit * static_cast<float>(i % shells + 1) / shells;
          keys.push_back(uint64_t{std::bit_cast<uint32_t>(distance)} << 32 | (count - i));
        }
        std::vector<uint64_t> wanted = keys;
        std::sort(wanted.begin(), wanted.end());
        wanted.erase(wanted.begin());
        keys.resize(count + 2 * kBlockPadding);
        std::vector<uint64_t> few(count - 1), many(count - 1), scratch(count + kBlockPadding);
        std::vector<uint32_t> bucket(count + kBlockPadding), place(count), end(SortBuckets(count) + 1);
        kernels->sort_few(keys.data(), count, few.data());
        EXPECT_EQ(few, wanted);
        kernels->sort_many(keys.data(), count, kLimit, {bucket.data(), place.data(), end.data(), scratch.data()},
                           many.data());
        EXPECT_EQ(many, wanted);
      }
    }
  }
}

TEST(NeighbourOptions, WhatIsOutOfRange_IsRefusedByName) {
  const auto expect = [](const NeighbourOptions& options, const std::string& field) {
    EXPECT_THAT(NeighbourFinder::Create(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                                           HasSubstr(absl::StrCat("ingest options: crystal.", field))));
  };
  expect({.graph = static_cast<NeighbourOptions::Graph>(99)}, "graph");
  expect({.k = 0}, "k: 0");
  expect({.k = 1025}, "k: 1025");
  expect({.tolerance = -1}, "tolerance");
  expect({.tolerance = std::nan("")}, "tolerance");
  expect({.cutoff = 0}, "cutoff");
  expect({.cutoff = 101}, "cutoff");
  expect({.graph = Graph::RADIUS, .max_neighbors = -1}, "max_neighbors");
  expect({.max_neighbors = 3}, "max_neighbors");
  expect({.triplet_cutoff = -2}, "triplet_cutoff");
  expect({.graph = Graph::CGCNN, .directed = true}, "directed");
}

TEST(NeighbourFinder, UnknownPath_IsNotFound) {
  EXPECT_THAT(NeighbourFinder::Create({}, "abacus"),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("abacus"), HasSubstr(CrystalPaths().front()))));
}

}  // namespace
}  // namespace stoker::transforms
