// SPDX-License-Identifier: Apache-2.0
// Graphs of real crystals, against what ALIGNN, vesin and matscipy make of them, and against a search over all images.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/transforms/line_graph.h"
#include "server/transforms/neighbours.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/crystal_data.h"
#include "tests/unit/transforms/all_pairs.h"

namespace stoker::ingest {
namespace {

using nlohmann::json;
using transforms::Edge;
using transforms::NeighbourFinder;
using transforms::NeighbourList;
using transforms::NeighbourOptions;
using transforms::Pair;
using transforms::PairsOf;
using transforms::Reversed;
using transforms::SortedEdges;
using Graph = v1::IngestOptions::Crystal;

transforms::Crystal CrystalOf(const Structure& structure) {
  transforms::Crystal crystal;
  for (size_t i = 0; i < 9; ++i) crystal.lattice[i / 3][i % 3] = structure.lattice[i];
  crystal.fraction = structure.frac_coords;
  crystal.periodic = structure.periodic;
  return crystal;
}

// The real structures by the names that the goldens use; empty where there are none.
const std::map<std::string, Structure>& RealStructures() {
  static const auto* const structures = [] {
    auto* const found = new std::map<std::string, Structure>();
    std::ifstream file(SharedDir() + "/golden/structures.json");
    if (!file) return found;
    std::map<std::string, Found> files;
    const json golden = json::parse(file)["structures"];
    for (const auto& [key, value] : golden.items()) {
      const size_t hash = key.find('#');
      const std::string name = key.substr(0, hash);
      if (!files.contains(name)) files[name] = ReadAny(absl::StrCat(SharedDir(), "/data/crystals/", name));
      const size_t record = hash == std::string::npos ? 0 : std::stoul(key.substr(hash + 1));
      if (record < files[name].size() && files[name][record].ok()) found->emplace(key, *files[name][record]);
    }
    return found;
  }();
  return *structures;
}

json Golden(const std::string& name) {
  std::ifstream file(SharedDir() + "/golden/" + name);
  return file ? json::parse(file)["structures"] : json();
}

struct Sums {
  int64_t triplets = 0;
  double cosines = 0;
};
Sums SumLineGraph(v1::GraphRecipe::LineGraph kind, const NeighbourList& list) {
  transforms::LineGraph graph;
  graph.Assign(kind, list.offset, list.destination, list.triplet_degree, list.r);
  std::vector<float> cosines(static_cast<size_t>(graph.triplets()));
  graph.Write(v1::DTYPE_I64, 0, v1::DTYPE_F32, nullptr, nullptr, cosines.data());
  Sums sums{graph.triplets(), 0};
  for (const float cosine : cosines) sums.cosines += cosine;
  return sums;
}

double SumDistance(const NeighbourList& list) {
  double sum = 0;
  for (const float distance : list.distance) sum += distance;
  return sum;
}

NeighbourFinder Finder(const NeighbourOptions& options) { return *NeighbourFinder::Create(options); }

TEST(GraphData, AlignnCompatible_HasAlignnsEdgesWhereTheyDoNotHangOnRounding) {
  const json golden = Golden("alignn_knn.json");
  if (golden.empty()) GTEST_SKIP() << "no alignn_knn.json beside the project";
  NeighbourFinder finder = Finder({.graph = Graph::ALIGNN});
  int safe = 0, unsafe_equal = 0, unsafe_all = 0;
  for (const json& wanted : golden) {
    SCOPED_TRACE(wanted["file"]);
    ASSERT_OK_AND_ASSIGN(const NeighbourList list,
                         finder.Find(CrystalOf(RealStructures().at(wanted["file"].get<std::string>()))));
    if (!wanted["tie_safe"].get<bool>()) {
      ++unsafe_all;
      unsafe_equal += list.edges() == wanted["num_edges"].get<int64_t>() ? 1 : 0;
      continue;
    }
    ++safe;
    ASSERT_EQ(list.edges(), wanted["num_edges"].get<int64_t>());
    EXPECT_EQ(SortedEdges(list), wanted["edges"].get<std::vector<Edge>>());
    EXPECT_NEAR(SumDistance(list), wanted["sum_edge_length"].get<double>(), 1e-5 * static_cast<double>(list.edges()));
    const Sums dgl = SumLineGraph(v1::GraphRecipe::DGL, list);
    EXPECT_EQ(dgl.triplets, wanted["lg_edges_dgl"].get<int64_t>());
    EXPECT_NEAR(dgl.cosines, wanted["sum_cos_dgl"].get<double>(), 1e-6 * static_cast<double>(dgl.triplets) + 1e-4);
    const Sums torch = SumLineGraph(v1::GraphRecipe::TORCH, list);
    EXPECT_EQ(torch.triplets, wanted["lg_edges_torch"].get<int64_t>());
    EXPECT_NEAR(torch.cosines, wanted["sum_cos_torch"].get<double>(), 1e-6 * static_cast<double>(dgl.triplets) + 1e-4);
  }
  EXPECT_EQ(safe, 68);
  // Made with unfused products, as the finder's are.
  EXPECT_EQ(unsafe_equal, unsafe_all);
}

TEST(GraphData, KNearestWithTolerance_HasTheGoldenCounts) {
  const json golden = Golden("alignn_knn.json");
  if (golden.empty()) GTEST_SKIP() << "no alignn_knn.json beside the project";
  NeighbourFinder undirected = Finder({});
  NeighbourFinder directed = Finder({.directed = true});
  int compared = 0;
  for (const json& wanted : golden) {
    const json& counts = wanted["tol_1e-4"];
    if (!counts["clear"].get<bool>()) continue;
    SCOPED_TRACE(wanted["file"]);
    const transforms::Crystal crystal = CrystalOf(RealStructures().at(wanted["file"].get<std::string>()));
    ASSERT_OK_AND_ASSIGN(const NeighbourList chosen, directed.Find(crystal));
    EXPECT_EQ(chosen.edges(), counts["chosen"].get<int64_t>());
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, undirected.Find(crystal));
    ASSERT_EQ(list.edges(), counts["distinct"].get<int64_t>());
    EXPECT_NEAR(SumDistance(list), counts["sum_length"].get<double>(), 1e-6 * static_cast<double>(list.edges()));
    int64_t self = 0;
    for (int64_t e = 0; e < list.edges(); ++e) self += list.source[e] == list.destination[e] ? 1 : 0;
    EXPECT_EQ(self, counts["distinct_self"].get<int64_t>());
    ++compared;
  }
  EXPECT_GT(compared, 100);
}

void ExpectPairs(const NeighbourList& list, const json& wanted, double cutoff, bool in_file_order) {
  if (wanted.contains("pairs_below")) {
    // In float64 there; distances are float32 here.
    const auto below = [&](double limit) {
      return std::count_if(list.distance.begin(), list.distance.end(),
                           [&](float distance) { return distance < limit; });
    };
    EXPECT_LE(below(cutoff - 1.1e-5), wanted["pairs_below"].get<int64_t>());
    EXPECT_GE(below(cutoff - 0.9e-5), wanted["pairs_below"].get<int64_t>());
    return;
  }
  ASSERT_EQ(list.edges(), wanted["pairs"].get<int64_t>());
  EXPECT_NEAR(SumDistance(list), wanted["sum_distance"].get<double>(), 1e-6 * static_cast<double>(list.edges()) + 1e-6);
  std::array<double, 3> sum_abs = {};
  int64_t sum_ij = 0;
  for (int64_t e = 0; e < list.edges(); ++e) {
    for (int64_t k = 0; k < 3; ++k) sum_abs[static_cast<size_t>(k)] += std::abs(list.r[3 * e + k]);
    sum_ij += (int64_t{list.source[e]} + 1) * (int64_t{list.destination[e]} + 1);
  }
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_NEAR(sum_abs[k], wanted["sum_abs_xyz"][k].get<double>(), 2e-6 * static_cast<double>(list.edges()) + 1e-5);
  }
  if (in_file_order) {
    EXPECT_EQ(sum_ij, wanted["sum_ij"].get<int64_t>());
  }
  int64_t fewest = list.edges(), most = 0;
  for (size_t i = 0; i + 1 < list.offset.size(); ++i) {
    fewest = std::min(fewest, list.offset[i + 1] - list.offset[i]);
    most = std::max(most, list.offset[i + 1] - list.offset[i]);
  }
  EXPECT_EQ(fewest, wanted["degree"][0].get<int64_t>());
  EXPECT_EQ(most, wanted["degree"][1].get<int64_t>());
}

TEST(GraphData, Radius_HasThePairsOfVesinAndMatscipy) {
  const json golden = Golden("radius_pairs.json");
  if (golden.empty()) GTEST_SKIP() << "no radius_pairs.json beside the project";
  int compared = 0;
  for (const double cutoff : {5.0, 6.0, 8.0}) {
    NeighbourFinder finder = Finder({.graph = Graph::RADIUS, .cutoff = cutoff});
    for (const auto& [name, wanted] : golden.items()) {
      SCOPED_TRACE(absl::StrCat(name, " at ", cutoff));
      const auto structure = RealStructures().find(name);
      ASSERT_NE(structure, RealStructures().end());
      ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(CrystalOf(structure->second)));
      ExpectPairs(list, wanted["cutoffs"][absl::StrFormat("%.1f", cutoff)], cutoff,
                  name.find(".cif") == std::string::npos);
      ++compared;
    }
  }
  EXPECT_GT(compared, 1500);
}

TEST(GraphData, M3gnetTriplets_AreThoseOfBondsWithinTheTripletCutoff) {
  const json golden = Golden("radius_pairs.json");
  if (golden.empty()) GTEST_SKIP() << "no radius_pairs.json beside the project";
  NeighbourFinder finder = Finder({.graph = Graph::RADIUS, .cutoff = 5, .triplet_cutoff = 4});
  for (const auto& [name, wanted] : golden.items()) {
    SCOPED_TRACE(name);
    const json& triplets = wanted["triplets_5_4"];
    if (!triplets.contains("triplets")) continue;
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, finder.Find(CrystalOf(RealStructures().at(name))));
    int64_t bonds = 0;
    for (const int32_t degree : list.triplet_degree) bonds += degree;
    EXPECT_EQ(bonds, triplets["bonds"].get<int64_t>());
    const Sums sums = SumLineGraph(v1::GraphRecipe::M3GNET, list);
    EXPECT_EQ(sums.triplets, triplets["triplets"].get<int64_t>());
    EXPECT_NEAR(sums.cosines, triplets["sum_cos"].get<double>(), 1e-6 * static_cast<double>(sums.triplets) + 1e-4);
  }
}

// ---- against a search over all images ----

// False where rounding decides: a distance is within 1e-5 of the limit.
bool IsClear(const std::vector<Pair>& pairs, double limit) {
  return std::none_of(pairs.begin(), pairs.end(), [&](const Pair& p) { return std::abs(p.distance - limit) < 1e-5; });
}

void ExpectEdges(std::set<Edge> wanted, const NeighbourList& list) {
  const std::vector<Edge> edges = SortedEdges(list);
  EXPECT_EQ(edges.size(), wanted.size());
  EXPECT_TRUE(std::equal(edges.begin(), edges.end(), wanted.begin(), wanted.end()));
}

TEST(GraphData, EveryRecipeOnEveryStructure_IsWhatASearchOverAllImagesFinds) {
  if (RealStructures().empty()) GTEST_SKIP() << "no real structures beside the project";
  constexpr double kCutoff = 5;
  NeighbourFinder knn = Finder({});
  NeighbourFinder directed = Finder({.k = 8, .directed = true});
  NeighbourFinder capped = Finder({.graph = Graph::RADIUS, .cutoff = kCutoff, .max_neighbors = 6});
  NeighbourFinder table = Finder({.graph = Graph::CGCNN, .k = 10, .cutoff = kCutoff});
  int compared = 0;
  for (const auto& [name, structure] : RealStructures()) {
    if (structure.atoms() > 70) continue;  // the search takes the square of it; the larger ones have goldens
    SCOPED_TRACE(name);
    const transforms::Crystal crystal = CrystalOf(structure);
    ASSERT_OK_AND_ASSIGN(const NeighbourList list, knn.Find(crystal));
    const double longest = *std::max_element(list.distance.begin(), list.distance.end());
    std::vector<std::vector<Pair>> pairs;
    for (int64_t i = 0; i < static_cast<int64_t>(structure.atoms()); ++i) {
      pairs.push_back(PairsOf(crystal, i, std::max(longest + 0.01, kCutoff + 0.01)));
    }
    std::set<Edge> nearest, own, within, first;
    bool clear = true;
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto limit_of = [&](size_t k) { return pairs[i].size() >= k ? pairs[i][k - 1].distance + 1e-4 : longest; };
      clear = clear && IsClear(pairs[i], limit_of(12)) && IsClear(pairs[i], limit_of(8)) &&
              IsClear(pairs[i], limit_of(6)) && IsClear(pairs[i], kCutoff);
      size_t shorter = 0;
      for (const Pair& pair : pairs[i]) {
        if (pair.distance <= limit_of(12)) nearest.insert(pair.edge), nearest.insert(Reversed(pair.edge));
        if (pair.distance <= limit_of(8)) own.insert(pair.edge);
        if (pair.distance <= kCutoff && pair.distance <= limit_of(6)) within.insert(pair.edge);
        if (pair.distance <= kCutoff && ++shorter <= 10) first.insert(pair.edge);
      }
    }
    if (!clear) continue;
    ExpectEdges(nearest, list);
    ASSERT_OK_AND_ASSIGN(const NeighbourList chosen, directed.Find(crystal));
    ExpectEdges(own, chosen);
    ASSERT_OK_AND_ASSIGN(const NeighbourList nearby, capped.Find(crystal));
    ExpectEdges(within, nearby);
    ASSERT_OK_AND_ASSIGN(const NeighbourList rows, table.Find(crystal));
    ASSERT_EQ(rows.edges(), static_cast<int64_t>(10 * structure.atoms()));
    std::vector<double> want, have;  // which of equally far ones comes first is not said by a search
    for (size_t i = 0; i < pairs.size(); ++i) {
      for (size_t k = 0; k < 10; ++k) {
        const bool there = k < pairs[i].size() && pairs[i][k].distance <= kCutoff;
        want.push_back(there ? pairs[i][k].distance : kCutoff + 1);
        have.push_back(rows.distance[10 * i + k]);
        if (!there) {
          ASSERT_EQ(rows.destination[10 * i + k], 0);
        }
      }
    }
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(have[i], want[i], 1e-5);
    ++compared;
  }
  EXPECT_GT(compared, 250);
}

}  // namespace
}  // namespace stoker::ingest
