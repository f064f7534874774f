// SPDX-License-Identifier: Apache-2.0
// Tables of costs for the tests of plans by budget.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "server/plan/cost_table.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

struct Graph {
  int32_t nodes, edges, triplets;
};

// Owns what a CostTable refers to.
class Graphs {
 public:
  explicit Graphs(absl::Span<const Graph> graphs) {
    for (const Graph& g : graphs) values_.insert(values_.end(), {g.nodes, g.edges, g.triplets});
  }
  uint64_t size() const { return values_.size() / 3; }
  uint64_t at(uint64_t sample, int field) const { return values_[3 * sample + field]; }
  CostTable table() const {
    const absl::Span<const int32_t> all = values_;
    return {.samples = size(), .nodes = {all, 3}, .edges = {all.subspan(1), 3}, .triplets = {all.subspan(2), 3}};
  }

 private:
  std::vector<int32_t> values_;  // I32[S, 3], as a store has them
};

inline std::vector<Graph> Resample(absl::Span<const Graph> from, uint64_t count, uint32_t seed) {
  std::mt19937 random(seed);  // the standard says what it gives; its distributions are not used for that reason
  std::vector<Graph> graphs(count);
  for (Graph& graph : graphs) graph = from[random() % from.size()];
  return graphs;
}

// Nodes spread by a Pareto law with the given exponent from `least` up to `most`, 8 to 24 edges each, and triplets by
// the square of that.
inline std::vector<Graph> HeavyTailed(uint64_t count, double exponent, int32_t least, int32_t most, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Graph> graphs(count);
  for (Graph& graph : graphs) {
    const double uniform = (random() + 1.0) / 4294967297.0;
    const double nodes = std::min<double>(most, least * std::pow(uniform, -1 / exponent));
    const int32_t degree = 8 + static_cast<int32_t>(random() % 17);
    graph.nodes = static_cast<int32_t>(nodes);
    graph.edges = graph.nodes * degree;
    graph.triplets = graph.edges * (degree - 1);
  }
  return graphs;
}

// Numbers of atoms in cells of inorganic crystals are about so spread.
inline std::vector<Graph> Crystals(uint64_t count, uint32_t seed) { return HeavyTailed(count, 1.7, 2, 140, seed); }

inline v1::Plan BudgetedPlan(uint64_t graphs, uint64_t nodes, uint64_t edges, uint64_t triplets, uint32_t world = 1,
                             v1::TailPolicy tail = v1::KEEP) {
  v1::Plan plan;
  plan.set_shuffle(true);
  plan.set_seed(11);
  plan.set_world(world);
  plan.set_tail(tail);
  plan.set_oversize(v1::OVERSIZE_FAIL);
  plan.mutable_budget()->set_graphs(graphs);
  plan.mutable_budget()->set_nodes(nodes);
  plan.mutable_budget()->set_edges(edges);
  plan.mutable_budget()->set_triplets(triplets);
  return plan;
}

}  // namespace stoker::plan
