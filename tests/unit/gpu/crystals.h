// SPDX-License-Identifier: Apache-2.0
// Batches of made-up periodic graphs as GraphRecipe describes them, and their line graphs by the definition.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "client/gpu/kernels/program.h"

namespace stoker::gpu {

struct Crystals {
  std::vector<int64_t> num_nodes, num_edges, num_triplets;  // of each graph
  std::vector<int64_t> edge_index;                          // [2, E]
  std::vector<float> r;                                     // [E, 3]
  std::vector<float> distance;                              // [E]

  int64_t nodes() const { return std::accumulate(num_nodes.begin(), num_nodes.end(), int64_t{0}); }
  int64_t edges() const { return static_cast<int64_t>(distance.size()); }
  std::vector<int64_t> ptr() const {
    std::vector<int64_t> result = {0};
    for (const int64_t n : num_nodes) result.push_back(result.back() + n);
    return result;
  }
  std::vector<int64_t> batch() const {
    std::vector<int64_t> result;
    for (size_t g = 0; g < num_nodes.size(); ++g) result.insert(result.end(), num_nodes[g], static_cast<int64_t>(g));
    return result;
  }
  // Numbered within each graph.
  std::vector<int64_t> local_edge_index() const {
    std::vector<int64_t> result = edge_index;
    const std::vector<int64_t> first = ptr(), graph = batch();
    for (int64_t& node : result) node -= first[graph[node]];
    return result;
  }
};

// Graphs of so many atoms, each atom with `neighbours` edges to random atoms, itself among them, where has_edges says
// so.
inline Crystals MakeCrystals(const std::vector<int64_t>& atoms, int neighbours, const std::vector<int>& has_edges) {
  std::mt19937_64 random(17);
  std::normal_distribution<float> normal;
  Crystals crystals;
  std::vector<int64_t> destinations;
  int64_t first = 0;
  for (size_t g = 0; g < atoms.size(); ++g) {
    crystals.num_nodes.push_back(atoms[g]);
    crystals.num_edges.push_back(has_edges[g] != 0 ? atoms[g] * neighbours : 0);
    for (int64_t source = first; has_edges[g] != 0 && source < first + atoms[g]; ++source) {
      std::vector<std::array<float, 4>> edges;
      for (int k = 0; k < neighbours; ++k) {
        const float x = normal(random), y = normal(random), z = 2.0f * normal(random);
        edges.push_back({std::sqrt(x * x + y * y + z * z), x, y, z});
      }
      std::sort(edges.begin(), edges.end());
      for (const auto& [distance, x, y, z] : edges) {
        crystals.edge_index.push_back(source);
        destinations.push_back(first + static_cast<int64_t>(random() % atoms[g]));
        crystals.distance.push_back(distance);
        crystals.r.insert(crystals.r.end(), {x, y, z});
      }
    }
    first += atoms[g];
  }
  crystals.edge_index.insert(crystals.edge_index.end(), destinations.begin(), destinations.end());
  crystals.num_triplets.assign(atoms.size(), 0);
  return crystals;
}

struct Triplets {
  std::vector<int64_t> pairs;      // [2, T]
  std::vector<double> cosines;     // [T]
  std::vector<int64_t> per_graph;  // [B]
};

// All pairs of edges, tried one by one.
inline Triplets LineGraphOf(const Crystals& crystals, LineGraphArgs::Mode mode, float cutoff) {
  Triplets triplets;
  std::vector<int64_t> second;
  const std::vector<int64_t> graph = crystals.batch();
  const int64_t edges = crystals.edges();
  const int64_t *source = crystals.edge_index.data(), *destination = source + edges;
  triplets.per_graph.assign(crystals.num_nodes.size(), 0);
  for (int64_t a = 0; a < edges; ++a) {
    for (int64_t b = 0; b < edges; ++b) {
      const int64_t at = mode == LineGraphArgs::kM3gnet ? source[a] : destination[a];
      if (source[b] != at || (a == b && mode != LineGraphArgs::kTorch)) continue;
      if (crystals.distance[a] > cutoff || crystals.distance[b] > cutoff) continue;
      triplets.pairs.push_back(a);
      second.push_back(b);
      ++triplets.per_graph[graph[source[a]]];
      double dot = 0, aa = 0, bb = 0;
      for (int k = 0; k < 3; ++k) {
        const double ra = crystals.r[3 * a + k], rb = crystals.r[3 * b + k];
        dot += ra * rb;
        aa += ra * ra;
        bb += rb * rb;
      }
      const double cosine = (mode == LineGraphArgs::kM3gnet ? dot : -dot) / (std::sqrt(aa) * std::sqrt(bb));
      triplets.cosines.push_back(std::clamp(cosine, -1.0, 1.0));
    }
  }
  triplets.pairs.insert(triplets.pairs.end(), second.begin(), second.end());
  return triplets;
}

}  // namespace stoker::gpu
